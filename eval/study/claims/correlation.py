"""Which metric of tokenizers orders them as a metric of their generators does?

A point is a tokenizer, each of its numbers a mean over the training seeds at which all that the
verdict rests on was measured. The claim names one metric that is said to order better than others:
their Spearman coefficients with the generators' metric are compared over the same tokenizers
(`intervals.difference_interval`, which decides, and the paired bootstrap beside it).

Better is decided so: the interval of the difference lies above 0 and the coefficient of the claimed
metric is itself above 0 at the 5 % level (an inverse order predicts nothing, however strong) is
yes; the interval below 0 and the other's coefficient above 0 at that level is no. Fewer than five
tokenizers decide nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from vistok.core.errors import InputError
from vistok.eval.results.metrics import metric, shown
from vistok.eval.study.claims.base import (
    FEWEST,
    Answer,
    ClaimBase,
    Collected,
    Reading,
    Test,
    counted,
    known_metrics,
    listed,
    register_claim,
    title,
)
from vistok.eval.study.claims.intervals import (
    bootstrap_interval,
    difference_interval,
    rank_p,
    spearman,
)
from vistok.eval.study.claims.numbers import Numbers, Seed

_LEVEL = 0.05
_POWER = 2.04  # ((1.96 + 0.84) / 1.96)^2: more points for an interval that decides 4 times in 5

Points = dict[str, dict[str, float]]
"""{run: {metric: mean over its seeds}}."""


@register_claim
class CorrelationClaimConfig(ClaimBase):
    """A metric orders tokenizers by the quality of their generators better than others do."""

    kind: Literal["correlation"] = "correlation"
    better: str
    """Metric that is claimed to order better."""
    than: tuple[str, ...] = Field(min_length=1)
    """Metrics that it is compared with; it must order better than each."""
    also: tuple[str, ...] = ()
    """Metrics that are compared too, without a part in the verdict."""
    of: str = "gFID"
    """Metric of the generators that is to be predicted."""
    runs: tuple[str, ...] = ()
    """Tokenizers; [] = all of the study."""

    @field_validator("better", "than", "also", "of")
    @classmethod
    def _known(cls, names: Any) -> Any:
        known_metrics((names,) if isinstance(names, str) else names)
        return names

    @model_validator(mode="after")
    def _apart(self) -> CorrelationClaimConfig:
        names = (*self.measured,)
        if len(set(names)) < len(names):
            raise InputError(f"{self.id}: a metric is named twice among better, than, also and of")
        return self

    @property
    def compared(self) -> tuple[str, ...]:
        return self.runs

    @property
    def measured(self) -> tuple[str, ...]:
        return (self.better, *self.than, *self.also, self.of)

    @property
    def decisive(self) -> tuple[str, ...]:
        return (self.better, *self.than, self.of)

    def read(self, numbers: Numbers) -> Reading:
        found = Collected()
        runs = self.runs or numbers.names
        every = {run: {m: numbers.mean(run, m) for m in self.measured} for run in runs}
        seeds = {run: self._whole(numbers, run) for run in runs}
        points = {
            run: {m: numbers.mean(run, m, own) for m in self.measured}
            for run, own in seeds.items()
            if own
        }
        for name in self.measured:
            lost = [run for run in runs if every[run][name] is None]
            if len(lost) == len(runs):
                found.missing.append(f"{name} of any tokenizer")
            elif lost:
                found.notes.append(f"{name} was not measured of {listed(lost)}, left out")
        for run, own in seeds.items():
            if all(every[run][m] is not None for m in self.decisive):
                found.notes += _partly(run, own, numbers.seeds(run))
        for other in (*self.than, *self.also):
            both = {run: own for run, own in points.items() if own[other] is not None}
            if other in self.than or both:
                found.tests.append(self._compare(both, other))
        for name in (self.better, *self.than, *self.also):
            both = {run: own for run, own in points.items() if own[name] is not None}
            if both:
                found.charts.append(self._chart(both, name))
        for run, own in points.items():
            values = ("" if own[m] is None else shown(own[m], m) for m in self.measured)
            found.lines.append((run, str(len(seeds[run])), *values))
        found.notes += numbers.notes
        header = ("tokenizer", "seeds", *map(title, self.measured))
        return found.reading(header, counted(len(points), "tokenizer"))

    def _whole(self, numbers: Numbers, run: str) -> list[Seed]:
        """Seeds of a tokenizer at which all was measured that the verdict rests on: means over
        other seeds would put other tokenizers on the two sides."""
        have = lambda seed: all(numbers.value(run, seed, m) is not None for m in self.decisive)
        return [seed for seed in numbers.seeds(run) if have(seed)]

    def _compare(self, points: Points, other: str) -> Test:
        n, y = len(points), [own[self.of] for own in points.values()]
        sides = {
            name: [self._turn(name) * own[name] for own in points.values()]
            for name in (self.better, other)
        }
        of = title(self.of)
        label = f"{title(self.better)} against {title(other)} as predictors of {of}"
        asked = other in self.than
        if n < FEWEST:
            chance = (
                f": even a perfect order of {n} has a p-value of {2 / math.factorial(n):.2g}"
                if n > 1
                else ""
            )
            them = counted(n, "tokenizer")
            text = f"{label}: with {them} nothing may be claimed, whatever the coefficients{chance}"
            return Test(label, "open", text, n=n, needed=_FEW, asked=asked)
        rho = {name: float(spearman(x, y)) for name, x in sides.items()}
        p = {name: rank_p(x, y) for name, x in sides.items()}
        if any(math.isnan(one) for one in rho.values()):
            text = f"{label}: a coefficient is undefined, since one side is constant"
            needed = "Tokenizers whose numbers differ."
            return Test(label, "open", text, n=n, needed=needed, asked=asked)
        told = " and ".join(
            f"{rho[name]:+.2f} (p = {p[name]:.2g}) of {title(name)}" for name in sides
        )
        told = f"{of}'s rank correlation over {n} tokenizers is {told}"
        gap = rho[self.better] - rho[other]
        x, z = sides.values()
        interval = difference_interval(x, z, y)
        if interval is None:
            text = f"{told}; their difference has no interval, since one point alone sets one side"
            return Test(label, "open", text, gap, None, n, _FEW, asked)
        told += f"; difference {gap:+.2f}, 95% interval {interval[0]:+.2f} to {interval[1]:+.2f}"
        if (drawn := bootstrap_interval(x, z, y)) is not None:
            told += f" (paired bootstrap {drawn[0]:+.2f} to {drawn[1]:+.2f})"
        shown_ = {name: rho[name] > 0 and p[name] < _LEVEL for name in sides}
        answer: Answer = "open"
        if interval[0] > 0 and shown_[self.better]:
            answer, says = "yes", f"{title(self.better)} orders these tokenizers better"
        elif interval[1] < 0 and shown_[other]:
            answer, says = "no", f"{title(other)} orders these tokenizers better"
        elif interval[0] > 0:
            says = f"yet {title(self.better)} itself is not shown to go with {of}"
        elif interval[1] < 0:
            says = f"yet {title(other)} itself is not shown to go with {of}"
        else:
            says = "these tokenizers do not tell which orders better"
        needed = "" if answer != "open" else _more(gap, interval, n)
        return Test(label, answer, f"{told}: {says}", gap, interval, n, needed, asked)

    def _turn(self, name: str) -> int:
        """-1 where a better number of this metric is a larger one and of the other a smaller one:
        a coefficient above 0 always means that better goes with better."""
        return 1 if metric(name).better in ("", metric(self.of).better) else -1

    def _chart(self, points: Points, name: str) -> dict[str, Any]:
        x = [own[name] for own in points.values()]
        y = [own[self.of] for own in points.values()]
        rho = float(spearman(x, y)) if len(x) > 2 else math.nan
        text = f"Spearman {rho:+.2f}, n = {len(x)}" if not math.isnan(rho) else f"n = {len(x)}"
        return {
            "kind": "scatter",
            "metric": self.of,
            "title": f"{title(name)} and {title(self.of)}",
            "text": text,
            "x_title": title(name),
            "y_title": title(self.of),
            "points": [[run, a, b] for run, a, b in zip(points, x, y, strict=True)],
        }


def _partly(run: str, whole: Sequence[Seed], every: Sequence[Seed]) -> list[str]:
    """A sentence on a tokenizer of which some seeds lack a metric."""
    if len(whole) == len(every):
        return []
    if not whole:
        return [f"{run} has no seed at which all was measured, left out"]
    return [f"{run}: mean of seed {', '.join(map(str, whole))}, at which all was measured"]


_FEW = f"At least {FEWEST} tokenizers; 12 or more to tell strong from weak relations."


def _more(gap: float, interval: Sequence[float], n: int) -> str:
    """How many tokenizers like these a difference of this size would take."""
    half = float(np.diff(interval)[0]) / 2
    if abs(gap) < half / 10:
        return "The coefficients are about equal: more tokenizers like these would hardly decide."
    count = math.ceil((n - 3) * _POWER * (half / gap) ** 2) + 3
    return f"About {max(count, n + 1)} tokenizers, if the coefficients stay as they are here."
