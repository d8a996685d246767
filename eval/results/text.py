"""Measured numbers as text: the value with its marks, its spread, its floor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from vistok.eval.results.metrics import METRICS, counted, shown
from vistok.eval.results.rows import Row

FEWEST = 50  # images; below it a number is marked whatever its metric
FEW = "†"
FEW_MEANS = (
    f"{FEW} few images or clips: such a number says as much of how many there are as of the model; "
    "compare it with numbers of the same count alone"
)
BELOW = "‡"
BELOW_MEANS = (
    f"{BELOW} below its floor: nearer to the reference than as many other real images are. There "
    "the distance no longer tells which of two is better; a generator below it may repeat the "
    "reference, while reconstructions, which share its images, often are"
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
    """The value as tables print it, marked if it rests on few images or lies below its floor."""
    return shown(row.number, row.metric) + mark(row) + BELOW * row.below_floor


def signed(value: float, name: str) -> str:
    """A difference of a metric as tables print it, with its sign."""
    return shown(value, name) if value < 0 else f"+{shown(value, name)}"


def spread_text(row: Row) -> str:
    """The spread beside a value: "(9.80–10.41)", the range over sampling seeds; "±0.12", half the
    95% interval over images; "" for neither."""
    if row.range is not None:
        low, high = (shown(one, row.metric) for one in row.range)
        return f"({low}–{high})"
    if row.interval is None or row.value is None:
        return ""
    return "±" + shown((row.interval[1] - row.interval[0]) / 2, row.metric)


def whole_text(row: Row) -> str:
    """The value with its marks and its spread, for tables of plain text."""
    return f"{value_text(row)} {spread_text(row)}".strip()


def spread_means(rows: Iterable[Row]) -> list[str]:
    """Sentences on the spreads that are shown among these rows."""
    rows = list(rows)
    seeds = sorted({len(row.seeds) for row in rows if row.range is not None})
    said = []
    if seeds:
        many = " or ".join(map(str, seeds))
        said.append(
            f"In brackets: the smallest and the largest of {many} sampling seeds, of which the "
            "number is the mean."
        )
    if any(row.interval is not None and row.range is None for row in rows):
        said.append("±: half a 95% interval of what other images, as many, would give.")
    return said


def tip(row: Row) -> str:
    """What a number's spread, floor and guidance are, in a line; "" for none."""
    number, said = lambda value: shown(value, row.metric), []
    for seed, value in zip(row.seeds, row.each, strict=True):
        said.append(f"seed {seed}: {number(value)}")
    if row.interval is not None:
        low, high = map(number, row.interval)
        said.append(f"95% interval over {row.varies or 'images'}: {low} to {high}")
    if schedule := schedule_text(row):
        said.append(f"guidance {scale_text(row.guidance)}, {schedule} schedule")
    if row.floor is not None:
        said.append(f"floor: {floor_text(row)}, that of {floor_images(row)}")
    return "; ".join(said)


def floor_text(row: Row) -> str:
    """The floor of a number as tables print it, with its count where that is another; "" for
    none."""
    if row.floor is None:
        return ""
    other = f" (n={row.floor.count:,})" if row.floor.count != row.count else ""
    return shown(row.floor.value, row.metric) + other


def floor_images(row: Row) -> str:
    """Which real images are the floor of a row: "64 training images of photos"."""
    floor = row.floor
    kind = {"train": "training", "val": "held-out"}.get(floor.reference.split, "other")
    noun = counted(row.metric, row.clip is not None)
    return f"{floor.count:,} {kind} {noun} of {floor.reference.name}"


def below_reasons(
    rows: Iterable[Row], named: Callable[[Row], str] = lambda row: row.display
) -> list[str]:
    """One line for each number below its floor, with its run and length."""
    return [
        f"{named(row)} of {row.run}"
        + ("" if row.length is None else f" at {row.length}")
        + f": {shown(row.value, row.metric)}; {floor_images(row)} have {floor_text(row)}"
        for row in rows
        if row.below_floor
    ]


def schedule_text(row: Row) -> str:
    """How guidance runs over the steps of sampling: "constant", "linear from 1", "power 2 from 1,
    at 0 to 0.9 of the steps"; "" where nothing was guided, or is said of it."""
    how = row.sampling.get("generator", {})
    if row.guidance in (None, 1.0) or not how.get("guidance_schedule"):
        return ""
    said = str(how["guidance_schedule"])
    power, start = how.get("guidance_power"), how.get("guidance_start")
    if said == "power" and isinstance(power, int | float):
        said += f" {power:g}"
    if said != "constant" and isinstance(start, int | float):
        said += f" from {start:g}"
    found = how.get("guidance_interval") or (0, 1)
    low, high = (float(one) if isinstance(one, int | float) else math.nan for one in found)
    return said if (low, high) == (0, 1) else f"{said}, at {low:g} to {high:g} of the steps"


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
