"""A measured row beside a published figure: agreement, distance, or the fields that differ.

Numbers of different protocols are never compared: where one stated field differs, the verdict is
"not comparable" whatever the numbers are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vistok.config.overrides import leaves, text_of
from vistok.eval.reference.real import UNKNOWN
from vistok.eval.results.rows import Row
from vistok.pretrained.published import Preset

Outcome = Literal["pass", "fail", "not comparable"]

_ALLOWED = "reference mismatch allowed: "  # how a row's note begins that says so
_STATED = ("network", "split", "count", "size", "crop", "filter", "condition", "precision")
_OF_REFERENCE = ("split", "crop", "filter")  # that a file of statistics has instead


@dataclass(frozen=True)
class Difference:
    """One field in which the measurement is not the published one."""

    field: str
    published: str
    here: str


@dataclass(frozen=True)
class Verdict:
    """A preset, the row that was measured for it, and what follows."""

    preset: Preset
    row: Row
    differences: tuple[Difference, ...]
    unstated: tuple[str, ...]
    """Fields that the source does not give."""

    @property
    def apart(self) -> float | None:
        """Measured minus published; None where no number was measured."""
        return None if self.row.value is None else self.row.value - self.preset.value

    @property
    def outcome(self) -> Outcome:
        if self.differences:
            return "not comparable"
        agrees = self.apart is not None and abs(self.apart) <= self.preset.tolerance
        return "pass" if agrees else "fail"


def verdict(preset: Preset, row: Row, own: Mapping[str, Mapping[str, Any]]) -> Verdict:
    """Compare a row with a published figure.

    Args:
        own: the sampling settings that come with the release, {generator: {...}, decoder: {...}}.
    """
    protocol, found = preset.protocol, []
    for field in _STATED:
        stated, here = getattr(protocol, field), _here(row, field)
        if stated is not None and stated != here:
            found.append(Difference(field, text(stated), text(here)))
    if protocol.split is not None and protocol.count not in (None, row.reference.count):
        here = f"{row.reference.count:,}"
        found.append(Difference("real images", text(protocol.count), here))
    if protocol.reference is not None and (here := _not_the_file(row, protocol.reference)):
        found.append(Difference("reference", protocol.reference, here))
    if protocol.latents not in (None, "means"):
        found.append(Difference("latents", protocol.latents, "means"))
    found += _sampling(row, own) if protocol.samples else []
    for said in row.note.split("; "):
        if said.startswith(_ALLOWED):
            found.append(Difference("reference", "as the images", said.removeprefix(_ALLOWED)))
    lacking = [f"sampling of the {p}" for p in row.sampling if protocol.samples and p not in own]
    return Verdict(preset, row, tuple(found), (*unstated(preset), *lacking))


def unstated(preset: Preset) -> tuple[str, ...]:
    """Fields of the protocol that its source does not state."""
    protocol = preset.protocol
    without = _OF_REFERENCE if preset.metric.startswith("gFID") else ()
    fields = [f for f in _STATED if f not in without and getattr(protocol, f) is None]
    fields += ["reference"] * (bool(without) and protocol.reference is None)
    return (*fields, "seed") if protocol.samples else tuple(fields)


def text(value: Any) -> str:
    """A value as people read it: 256x256, 50,000, fp32."""
    if isinstance(value, tuple | list):
        return "x".join(map(str, value))
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "none" if value in (None, "") else str(value)


def _not_the_file(row: Row, wanted: str) -> str:
    """What a row was compared with instead of a published file of statistics, which is known by its
    name alone; "" if it was that."""
    if row.reference.split != UNKNOWN:
        return f"{row.reference.name}, {row.reference.split} split"
    return "" if row.reference.name == Path(wanted).stem else f"{row.reference.name}.npz"


def _here(row: Row, field: str) -> Any:
    """The value of a measured row, where a published protocol has `field`."""
    if field == "network":
        return None if row.features is None else row.features.name
    return row.reference.split if field == "split" else getattr(row, field)


def _sampling(row: Row, own: Mapping[str, Mapping[str, Any]]) -> list[Difference]:
    """Sampling settings that are not those of the release."""
    found = []
    for part, settings in row.sampling.items():
        wanted = dict(leaves(own.get(part, {}), part))
        for key, value in leaves(settings, part):
            if key in wanted and _plain(wanted[key]) != _plain(value):
                found.append(Difference(key, text_of(wanted[key]), text_of(value)))
    return found


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
