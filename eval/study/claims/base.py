"""What all claims share: their keys, the answers of single tests, and what is read of the numbers.

A claim is a sentence of a paper. It is read once for each feature network (and once more without
doubtful runs), which gives some tests; each is answered "yes", "no" or "open" by an explicit rule.
`judge.py` makes one verdict of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import field_validator

from vistok.config import Config
from vistok.config.names import nearest
from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.eval.results.metrics import METRICS, metric
from vistok.eval.study.claims.intervals import Interval

HOLDS, FAILS, OPEN = "holds here", "does not hold here", "not decided"
FEWEST = 5  # seeds, pairs or tokenizers below which nothing general may be claimed
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

Answer = Literal["yes", "no", "open"]


@dataclass(frozen=True)
class Test:
    """One comparison."""

    name: str
    """What is compared: "gFID of vq-perturbed against vq"."""
    answer: Answer
    text: str
    """The numbers and what they say, one sentence."""
    value: float | None = None
    interval: Interval | None = None
    n: int = 0
    """Seeds, pairs or tokenizers behind it."""
    needed: str = ""
    """What an open test would need."""
    asked: bool = True
    """False: told beside, no part of the verdict."""


@dataclass(frozen=True)
class Reading:
    """A claim read through one feature network."""

    tests: tuple[Test, ...] = ()
    charts: tuple[dict[str, Any], ...] = ()
    """What the report draws: see eval/report/claims.py."""
    header: tuple[str, ...] = ()
    lines: tuple[tuple[str, ...], ...] = ()
    """The numbers, as a table."""
    missing: tuple[str, ...] = ()
    """What the claim needs and the results do not have."""
    notes: tuple[str, ...] = ()
    """What a reader must know of these numbers."""
    scope: str = ""
    """What the tests speak of: "3 seeds of 2 pairs"."""

    @property
    def answer(self) -> Answer:
        """Yes if all tests that were asked for say yes, no if one says no."""
        answers = [test.answer for test in self.tests if test.asked]
        if "no" in answers:
            return "no"
        whole = answers and not self.missing and all(one == "yes" for one in answers)
        return "yes" if whole else "open"


class ClaimBase(Config):
    """Keys that all claims have."""

    id: str
    """Short name; the figure is a file of this name."""
    paper: str = ""
    """Paper that makes the claim: title and number."""
    says: str
    """The sentence that is put to the test."""
    guidance: float = 1.0
    """Guidance scale of generated metrics."""
    generator: str | None = None
    """Last part of a generator's name, where a tokenizer has several: probe-tiny."""
    networks: tuple[str, ...] = ()
    """Feature networks by whose numbers the verdict is made; [] = all through which no training
    loss of the compared runs looks. The others are shown."""

    general: ClassVar[str] = "data, sizes or recipes"  # of what a verdict says nothing

    @field_validator("id")
    @classmethod
    def _file_name(cls, value: str) -> str:
        if not _ID.fullmatch(value):
            raise InputError(f"'{value}' is no file name; use letters, digits, . _ -")
        return value

    @property
    def compared(self) -> tuple[str, ...]:
        """Names of the runs that the claim is about; () = all tokenizers of the study."""
        raise NotImplementedError

    @property
    def measured(self) -> tuple[str, ...]:
        """Names of the metrics that it compares."""
        raise NotImplementedError

    def read(self, numbers: Any) -> Reading:
        """The claim in the numbers (`numbers.Numbers`) of one feature network."""
        raise NotImplementedError


def register_claim(claim: type[ClaimBase]) -> type[ClaimBase]:
    """File a kind of claim under its `kind`; its config is what reads the numbers."""
    return register("claim", claim)(claim)


def known_metrics(names: Sequence[str]) -> Sequence[str]:
    """The names as they are; InputError for one that the table of metrics does not have."""
    for name in names:
        if name not in METRICS:
            raise InputError(f"unknown metric '{name}'; {nearest(name, METRICS)}")
    return names


def title(name: str) -> str:
    return metric(name).title or name


def counted(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def listed(names: Sequence[str], most: int = 8) -> str:
    """ "a, b and 3 more"."""
    names = list(names)
    return (
        ", ".join(names)
        if len(names) <= most
        else (f"{', '.join(names[:most])} and {len(names) - most} more")
    )


@dataclass
class Collected:
    """Lists that a reading is put together from."""

    tests: list[Test] = field(default_factory=list)
    charts: list[dict[str, Any]] = field(default_factory=list)
    lines: list[tuple[str, ...]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def reading(self, header: Sequence[str] = (), scope: str = "") -> Reading:
        return Reading(
            tuple(self.tests),
            tuple(self.charts),
            tuple(header),
            tuple(self.lines),
            tuple(dict.fromkeys(self.missing)),
            tuple(dict.fromkeys(self.notes)),
            scope,
        )
