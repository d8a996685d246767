"""Names of numbers on a page: short ones, with what they leave out said once.

A whole name holds network and data (`rFID[vistok-cnn, photos]`). On a page where a metric was
measured with one network on one set of images, its short name is the metric's own; tooltips and
exports keep the whole one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vistok.eval.results.metrics import metric, order
from vistok.eval.results.rows import Row
from vistok.eval.results.text import scale_text, schedule_text

ARROWS = {"higher": "↑", "lower": "↓", "": ""}


@dataclass(frozen=True)
class Name:
    """A number's name: `title` and `inside` are shown, `whole` is its tooltip."""

    title: str
    inside: str
    whole: str
    better: str

    @property
    def text(self) -> str:
        """Short name on one line."""
        return f"{self.title} {self.inside}".strip()

    @property
    def arrow(self) -> str:
        return ARROWS[self.better]


def named(row: Row) -> str:
    """The whole name of a number: with network and data, and guidance where it was sampled."""
    if row.guidance is None or metric(row.metric).baseline:
        return row.display
    return f"{row.display} {_guidance(row)}"


def _guidance(row: Row) -> str:
    """Its scale, and the schedule of one that is not constant."""
    schedule = schedule_text(row)
    said = f"guidance {scale_text(row.guidance)}"
    return said if schedule in ("", "constant") else f"{said} {schedule}"


class Naming:
    """Short names of the numbers of one page."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._networks: dict[str, dict[str, None]] = {}
        self._sets: dict[str, dict[str, None]] = {}
        self._clips: dict[str, dict[tuple[int, ...], None]] = {}
        for row in rows:
            if row.metric.endswith("-cell"):
                continue
            if row.features is not None:
                self._networks.setdefault(row.metric, {})[row.features.name] = None
            self._sets.setdefault(row.metric, {})[row.reference.name] = None
            if row.clip is not None:
                self._clips.setdefault(row.metric, {})[row.clip] = None

    def of(self, row: Row, guided: bool = True) -> Name:
        """The name of a row's number; `guided`: with the guidance where it was sampled."""
        found, parts = metric(row.metric), []
        if row.features is not None and len(self._networks.get(row.metric, ())) > 1:
            parts.append(row.features.name)
        if row.preset:
            parts.append(row.preset)
        if len(self._sets.get(row.metric, ())) > 1:
            parts.append(row.reference.name)
        whole = named(row) if guided else row.display
        if row.clip is not None and len(self._clips.get(row.metric, ())) > 1:
            sides = "x".join(map(str, row.clip))
            parts.append(sides)
            whole += f", clips of {sides}"
        if guided and row.guidance is not None and not found.baseline:
            parts.append(_guidance(row))
        return Name(found.heading, ", ".join(parts), whole, found.better)

    def legend(self) -> list[str]:
        """Sentences on what short names leave out: networks with their metrics, and images."""
        own: dict[str, list[str]] = {}
        for name in sorted(self._networks, key=order):
            if len(self._networks[name]) == 1:
                own.setdefault(next(iter(self._networks[name])), []).append(name)
        said = []
        if len(own) == 1 and len(self._networks) == len(next(iter(own.values()))):
            said.append(f"Features are those of {next(iter(own))}.")
        elif own:
            each = "; ".join(f"{network} for {', '.join(names)}" for network, names in own.items())
            said.append(f"Features: {each}.")
        sets = list(dict.fromkeys(name for names in self._sets.values() for name in names))
        if len(sets) == 1:
            said.append(f"Images: {sets[0]}.")
        return said
