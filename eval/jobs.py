"""What a protocol has to do: named pieces of work, each with all that its numbers depend on.

A protocol module (eval/protocols) offers `jobs(pair, options) -> list[Job]`. A job never knows of
the others; a context of its own collects what it makes, so that its outcome can be kept, found
again and shown beside others.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from vistok.eval.context import Context
from vistok.eval.images import exact
from vistok.eval.options import Options
from vistok.eval.results.rows import Row
from vistok.eval.resumable import Passes
from vistok.eval.systems.runs import Pair, Run
from vistok.runtime import distributed

PROTOCOLS = {
    "rfid": "vistok.eval.protocols.rfid",
    "pfid": "vistok.eval.protocols.pfid",
    "gfid": "vistok.eval.protocols.gfid",
    "rate_distortion": "vistok.eval.protocols.rate_distortion",
    "robust": "vistok.eval.protocols.robust",
    "order": "vistok.eval.protocols.order",
    "probe": "vistok.eval.protocols.linear_probe",
    "pictures": "vistok.eval.protocols.image_grids",
}


@dataclass(frozen=True)
class Job:
    """One piece of a protocol: `work(context)` returns rows and leaves the rest on the context."""

    protocol: str
    work: Callable[[Context], list[Row]]
    settings: dict[str, Any] = field(default_factory=dict)  # JSON; whatever changes the outcome
    generator: Run | None = None  # whose weights the outcome also depends on
    once: bool = False  # the first rank alone does it
    version: int = 1  # of the protocol; raised whenever the same settings give other numbers


@dataclass(frozen=True)
class Outcome:
    """What a job made. All of it is JSON but for the rows, which are records."""

    rows: tuple[Row, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)  # under the fact's name, for this run
    skipped: tuple[dict[str, str], ...] = ()
    pictures: tuple[dict[str, Any], ...] = ()


def jobs_of(pair: Pair, options: Options) -> list[Job]:
    """All jobs of the protocols that were asked for; ValueError for an unknown protocol."""
    for name in options.protocols:
        if name not in PROTOCOLS:
            raise ValueError(f"unknown protocol '{name}'; valid: {', '.join(PROTOCOLS)}")
    found = []
    for name in options.protocols:
        found += importlib.import_module(PROTOCOLS[name]).jobs(pair, options)
    return found


def rows_of(outcomes: Iterable[Outcome]) -> tuple[Row, ...]:
    """All rows, in order. What is no run's (a codec on the images) is measured alike beside each
    tokenizer; it is listed once."""
    rows: list[Row] = []
    seen: set[str] = set()
    for row in (row for outcome in outcomes for row in outcome.rows):
        if not row.weights:
            own = row.model_dump_json(exclude={"versions", "commit", "date"})
            if own in seen:
                continue
            seen.add(own)
        rows.append(row)
    return tuple(rows)


def do(job: Job, context: Context, passes: Passes | None = None) -> Outcome:
    """Run one job on every rank (or on the first, if it says so); `passes`: where its long loops
    are kept."""
    if job.once and distributed.rank() > 0:
        return Outcome()
    own = replace(
        context,
        protocol=job.protocol,
        facts={},
        skipped=[],
        pictures=[],
        passes=passes or Passes(),
    )
    with exact():
        rows = job.work(own)
    return Outcome(tuple(rows), own.facts, tuple(own.skipped), tuple(own.pictures))
