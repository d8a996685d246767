"""Measured numbers as text: the value, and the mark of one that rests on few images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vistok.eval.results.metrics import shown
from vistok.eval.results.rows import Row

FEW = "†"
FEW_MEANS = (
    f"{FEW} few images: such a number says as much of how many there are as of the model; compare "
    "it with numbers of the same count alone"
)


def value_text(row: Row) -> str:
    """The value as tables print it, marked if it rests on few images."""
    return shown(row.number, row.metric) + mark(row)


def scale_text(scale: float | Sequence[float]) -> str:
    """A guidance scale: "1.5", or "1.9/2" of the two factors of a token."""
    scales = [scale] if isinstance(scale, int | float) else scale
    return "/".join(f"{one:g}" for one in scales)


def mark(*rows: Row) -> str:
    """The mark of a number, or of a chart, of which some rows rest on few images; "" if none."""
    return FEW if any(row.few for row in rows) else ""


def few_reasons(rows: Iterable[Row]) -> list[str]:
    """One line for each reason why numbers among these rows are marked, with their names."""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        if row.few:
            found.setdefault(row.few, {})[row.display] = None
    return [f"{', '.join(names)}: {why}" for why, names in found.items()]
