"""A metric over the kept length, as the area under its curve, seed by seed.

The area is a mean of the metric over the logarithm of the length, or over the share of the tokens
kept (trapezoids between the lengths that all runs have; of a single length the number itself). Of
two runs the areas are compared at the seeds that both have, by Student's interval of the mean
difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from vistok.core.errors import InputError
from vistok.eval.results.metrics import metric, shown
from vistok.eval.study.claims.base import (
    ClaimBase,
    Collected,
    Reading,
    counted,
    known_metrics,
    register_claim,
    title,
)
from vistok.eval.study.claims.compare import form_of, moved
from vistok.eval.study.claims.intervals import interval_of
from vistok.eval.study.claims.numbers import Number, Numbers, Seed

Curves = dict[str, dict[Seed, dict[int, Number]]]
"""{run: {seed: {kept tokens: number}}}."""


@register_claim
class CurveClaimConfig(ClaimBase):
    """Curves over the kept length: areas under them."""

    kind: Literal["curve"] = "curve"
    metric: str
    """The metric."""
    better: tuple[str, ...] = Field(min_length=1)
    """Runs that are claimed to be better, each one of them than each of `than`."""
    than: tuple[str, ...] = Field(min_length=1)
    """Runs that they are compared with."""
    over: Literal["log-length", "share"] = "log-length"
    """Axis along which the mean is taken."""
    lengths: tuple[int, ...] = ()
    """Kept tokens that count; [] = all that these runs have in common."""

    @field_validator("metric")
    @classmethod
    def _known(cls, name: str) -> str:
        known_metrics((name,))
        return name

    @model_validator(mode="after")
    def _apart(self) -> CurveClaimConfig:
        if twice := set(self.better) & set(self.than):
            raise InputError(f"{self.id}: {twice.pop()} stands in better and in than")
        return self

    @property
    def compared(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.better, *self.than)))

    @property
    def measured(self) -> tuple[str, ...]:
        return (self.metric,)

    def read(self, numbers: Numbers) -> Reading:
        found = Collected()
        curves = curves_of(numbers, self.compared, self.metric)
        lost = [run for run in self.compared if not curves[run]]
        found.missing += [f"{self.metric} over length of {run}" for run in lost]
        known = {run: own for run, own in curves.items() if own}
        lengths = common_lengths(known, self.lengths)
        if absent := [one for one in self.lengths if one not in lengths]:
            found.missing.append(f"{self.metric} at {', '.join(map(str, absent))} tokens")
        areas = {run: _areas(own, lengths, self.over) for run, own in known.items()}
        lower = metric(self.metric).better != "higher"
        for better in self.better:
            for than in self.than:
                if better not in known or than not in known or not lengths:
                    continue
                seeds = [seed for seed in areas[better] if seed in areas[than]]
                sample = [[(areas[than][seed], areas[better][seed])] for seed in seeds]
                label = f"Mean {title(self.metric)} over {self._axis(lengths)}, {better} against "
                form, sign = form_of(self.metric), -1 if lower else 1
                found.tests.append(moved(form, label + than, sample, sign, "seed"))
        found.lines += _lines(areas, self.metric, lower)
        if known:
            axis = "share of the tokens kept" if self.over == "share" else "kept tokens"
            found.charts.append(chart(known, self.metric, axis, self.over == "share"))
        if lengths and known:
            found.notes.append(f"lengths: {', '.join(map(str, lengths))} tokens")
        found.notes += numbers.notes
        seeds = numbers.common_seeds(self.compared)
        header = ("run", "seeds", "mean over the lengths", "95% interval")
        return found.reading(header, counted(len(seeds), "seed"))

    def _axis(self, lengths: Sequence[int]) -> str:
        if len(lengths) == 1:
            return f"{lengths[0]} tokens"
        what = "share kept" if self.over == "share" else "log length"
        return f"{what} ({lengths[0]} to {lengths[-1]} tokens)"


def curves_of(numbers: Numbers, runs: Sequence[str], name: str) -> Curves:
    """Curves of the runs and seeds that have one; {} for a run without."""
    found: Curves = {}
    for run in runs:
        own = {seed: numbers.curve(run, seed, name) for seed in numbers.seeds(run)}
        found[run] = {seed: curve for seed, curve in own.items() if curve}
    return found


def common_lengths(curves: Curves, wanted: Sequence[int] = ()) -> list[int]:
    """Lengths that all curves have (of those that are wanted), the shortest first."""
    each = [set(curve) for own in curves.values() for curve in own.values()]
    shared = set.intersection(*each) if each else set()
    return sorted(shared & set(wanted) if wanted else shared)


def area(lengths: Sequence[int], values: Sequence[float], over: str = "log-length") -> float:
    """Mean of the values [n] along the axis, by trapezoids; of one value that value."""
    if len(lengths) == 1:
        return float(values[0])
    x = np.asarray(lengths, dtype=float)
    x = x / x[-1] if over == "share" else np.log(x)
    y, steps = np.asarray(values, dtype=float), np.diff(x)
    return float(((y[1:] + y[:-1]) / 2 * steps).sum() / steps.sum())


def _areas(
    own: Mapping[Seed, Mapping[int, Number]], lengths: Sequence[int], over: str
) -> dict[Seed, float]:
    if not lengths:
        return {}
    values = {seed: [curve[one].value for one in lengths] for seed, curve in own.items()}
    return {seed: area(lengths, one, over) for seed, one in values.items()}


def _lines(
    areas: Mapping[str, Mapping[Seed, float]], name: str, lower: bool
) -> list[tuple[str, ...]]:
    """Runs with their mean area, the best first."""
    lines = []
    for run, own in areas.items():
        if own:
            values, interval = list(own.values()), interval_of(list(own.values()))
            told = "" if interval is None else f"{shown(interval[0], name)} to "
            told += "" if interval is None else shown(interval[1], name)
            mean = sum(values) / len(values)
            lines.append((mean if lower else -mean, run, str(len(values)), shown(mean, name), told))
    return [line[1:] for line in sorted(lines)]


def chart(curves: Curves, name: str, axis: str, share: bool = False) -> dict[str, Any]:
    """Mean curves with bands: over 3 seeds or more Student's interval of the mean at each length,
    of one seed the interval of its measurement."""
    series, bands = [], []
    for run, own in curves.items():
        points = []
        most = max(length for curve in own.values() for length in curve)
        for length in sorted({one for curve in own.values() for one in curve}):
            here = [curve[length] for curve in own.values() if length in curve]
            values = [one.value for one in here]
            band = here[0].interval if len(here) == 1 else None
            band = interval_of(values) if len(here) > 2 else band
            low, high = (None, None) if band is None else band
            x = length / most if share else length
            points.append([x, sum(values) / len(values), low, high])
        dots = [
            [length / most if share else length, one.value]
            for curve in own.values()
            for length, one in curve.items()
            if len(own) > 1
        ]
        if any(low is not None for _, _, low, _ in points):
            over = "the measurement" if len(own) == 1 else "the mean over seeds"
            bands.append(f"bands: 95% interval of {over}")
        series.append({"name": run, "points": points, "dots": dots})
    return {
        "kind": "curves",
        "metric": name,
        "title": f"{title(name)} over the kept length",
        "text": "; ".join(dict.fromkeys(bands)),
        "x_title": axis,
        "log_x": not share,
        "series": series,
    }


def rise(curve: Mapping[int, Number], lengths: Sequence[int]) -> float:
    """Growth of the logarithm of a number for each halving of the length: minus the slope of the
    least-squares line of ln(value) over log2(length). NaN for values that are not above 0."""
    values = [curve[one].value for one in lengths]
    if min(values) <= 0:
        return math.nan
    x = np.log2(np.asarray(lengths, dtype=float))
    x = x - x.mean()
    return float(-(x * np.log(values)).sum() / (x**2).sum())
