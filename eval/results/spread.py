"""Spread of numbers: rows of several sampling seeds become one, and intervals of means.

The number of several seeds is their mean, with all values beside it; never the best of them. Its
interval is Student's t over the seeds, which is honest for few seeds and therefore wide: 4.3
standard errors for three.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from vistok.eval.results.rows import Row

_NORMAL = 1.959964
_FREE = (  # fields that two seeds of one measurement need not share
    *("value", "not_finite", "interval", "varies", "seeds", "each", "seed", "floor"),
    *("measured", "few", "bias", "note", "versions", "commit", "date"),
)


def student(freedom: int) -> float:
    """97.5 % point of Student's t with so many degrees of freedom (1 or more)."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % interval of a mean by Student's t over its values; None for fewer than two."""
    count = len(values)
    if count < 2:
        return None
    mean = sum(values) / count
    variance = sum((value - mean) ** 2 for value in values) / (count - 1)
    return around(mean, math.sqrt(variance / count), count - 1)


def around(value: float, error: float, freedom: int | None = None) -> tuple[float, float] | None:
    """95 % interval of a value with a standard error; None where one of them is not finite.

    Args:
        freedom: degrees of freedom behind the error; None: the normal quantile.
    """
    reach = error * (_NORMAL if freedom is None else student(freedom))
    if not (math.isfinite(value) and math.isfinite(reach)):
        return None
    return value - reach, value + reach


def pooled(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Rows in order, with those that differ in nothing but their seed (and what was measured)
    made one: the mean over seeds, at the place of the first."""
    groups: dict[Any, list[Row]] = {}
    for number, row in enumerate(rows):
        key: Any = number
        if row.seed is not None and not row.seeds:
            key = row.model_dump_json(exclude={*_FREE, "display"})
        own = groups.setdefault(key, [])
        if row.seed in [one.seed for one in own]:  # the same measurement twice is no spread
            groups[number] = [row]
        else:
            own.append(row)
    return tuple(own[0] if len(own) == 1 else _one(own) for own in groups.values())


def _one(rows: Sequence[Row]) -> Row:
    """The mean of rows of several seeds."""
    first, each = rows[0], tuple(row.value for row in rows)
    known = [value for value in each if value is not None]
    finite = len(known) == len(each)
    value = sum(known) / len(known) if finite else None
    interval = mean_interval(known) if finite else None
    seeds = tuple(int(row.seed or 0) for row in rows)
    said = f"mean of {len(seeds)} sampling seeds ({', '.join(map(str, seeds))})"
    return first.model_copy(
        update={
            "value": value,
            "not_finite": "" if finite else next(r.not_finite for r in rows if r.value is None),
            "interval": interval,
            "varies": "" if interval is None else "seeds",
            "seeds": seeds,
            "each": each,
            "few": next((row.few for row in rows if row.few), ""),
            "note": "; ".join(filter(None, (first.note, said))),
        }
    )
