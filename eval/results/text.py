"""Measured numbers as text: the value, and the mark of one that rests on few images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from vistok.eval.results.metrics import METRICS, counted, shown
from vistok.eval.results.rows import Row

FEWEST = 50  # images; below it a number is marked whatever its metric
FEW = "†"
FEW_MEANS = (
    f"{FEW} few images or clips: such a number says as much of how many there are as of the model; "
    "compare it with numbers of the same count alone"
)


def few(row: Row) -> str:
    """Reason why a number rests on too few images; "" if it does not.

    The one rule of all metrics: what the measurement itself said (Fréchet distances and codebook
    statistics know how many they need), and fewer than `FEWEST` images for anything else. Sizes of
    codes and numbers that are not of images (speed) are exact whatever their count.
    """
    known = METRICS.get(row.metric)
    if row.few or known is None or known.exact or not 0 < row.count < FEWEST:
        return row.few
    return f"{row.count} {counted(row.metric, row.clip is not None)}, fewer than {FEWEST}"


def value_text(row: Row) -> str:
    """The value as tables print it, marked if it rests on few images."""
    return shown(row.number, row.metric) + mark(row)


def scale_text(scale: float | Sequence[float]) -> str:
    """A guidance scale: "1.5", or "1.9/2" of the two factors of a token."""
    scales = [scale] if isinstance(scale, int | float) else scale
    return "/".join(f"{one:g}" for one in scales)


def mark(*rows: Row) -> str:
    """The mark of a number, or of a chart, of which some rows rest on few images; "" if none."""
    return FEW if any(map(few, rows)) else ""


def few_reasons(
    rows: Iterable[Row], named: Callable[[Row], str] = lambda row: row.display
) -> list[str]:
    """One line for each reason why numbers among these rows are marked, with their names.

    Args:
        named: the name of a row's number.
    """
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        if why := few(row):
            found.setdefault(why, {})[named(row)] = None
    return [f"{', '.join(names)}: {why}" for why, names in found.items()]
