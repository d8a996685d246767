"""One metric stays flat as tokens get fewer, while another rises (FlexTok's gFID and rFID).

Both are seen as the share by which they grow for each halving of the length (the slope of the
logarithm over log2 of the length, by least squares), seed by seed. Three tests, of each run: the
one rises (interval above 0); the other is flat (interval within the margin, and no length farther
than the margin off the line: one that falls and rises again is not flat); the one rises more than
the other (interval of the difference above 0).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from vistok.eval.study.claims.base import (
    ClaimBase,
    Collected,
    Reading,
    Test,
    counted,
    known_metrics,
    register_claim,
    title,
)
from vistok.eval.study.claims.compare import equal, moved
from vistok.eval.study.claims.curve import chart, common_lengths, curves_of, rise
from vistok.eval.study.claims.numbers import Number, Numbers, Seed


@register_claim
class FlatClaimConfig(ClaimBase):
    """One metric stays flat as tokens get fewer, while another rises."""

    kind: Literal["flat"] = "flat"
    runs: tuple[str, ...] = Field(min_length=1)
    """Runs of which it is claimed."""
    flat: str
    """The metric that is claimed to stay."""
    rises: str
    """The metric that is claimed to rise."""
    within: float = Field(default=0.05, gt=0, lt=1)
    """Share by which a flat metric may change for each halving of the length."""
    lengths: tuple[int, ...] = ()
    """Kept tokens that count; [] = all at which both were measured."""

    @field_validator("flat", "rises")
    @classmethod
    def _known(cls, name: str) -> str:
        known_metrics((name,))
        return name

    @property
    def compared(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.runs))

    @property
    def measured(self) -> tuple[str, ...]:
        return (self.flat, self.rises)

    def read(self, numbers: Numbers) -> Reading:
        found = Collected()
        every = {name: curves_of(numbers, self.compared, name) for name in self.measured}
        for run in self.compared:
            own = {name: every[name][run] for name in self.measured}
            found.missing += [f"{name} over length of {run}" for name in own if not own[name]]
            if all(own.values()):
                self._read(found, run, own)
        for name, curves in every.items():
            if known := {run: own for run, own in curves.items() if own}:
                found.charts.append(chart(known, name, "kept tokens"))
        found.notes += numbers.notes
        seeds = numbers.common_seeds(self.compared)
        scope = f"{counted(len(seeds), 'seed')} of {counted(len(self.compared), 'tokenizer')}"
        header = ("run", "seed", *(f"{title(name)} for each halving" for name in self.measured))
        return found.reading(header, scope)

    def _read(self, found: Collected, run: str, own: dict) -> None:
        lengths = common_lengths(own, self.lengths)
        if absent := [one for one in self.lengths if one not in lengths]:
            found.missing.append(f"both metrics of {run} at {', '.join(map(str, absent))} tokens")
        if len(lengths) < 2:
            found.missing.append(f"two lengths of {run} at which both were measured")
            return
        seeds = [seed for seed in own[self.flat] if seed in own[self.rises]]
        rates = {seed: [rise(own[name][seed], lengths) for name in self.measured] for seed in seeds}
        rates = {seed: one for seed, one in rates.items() if not any(map(math.isnan, one))}
        percent = lambda value: f"{math.expm1(value):+.1%}"
        where = f"for each halving of {run}, {lengths[-1]} to {lengths[0]} tokens"
        flat, rises = (title(name) for name in self.measured)
        sample = [[(0.0, r)] for _, r in rates.values()]
        found.tests.append(moved(percent, f"{rises} {where}", sample, 1, "seed"))
        sample = [[(1.0, math.exp(g))] for g, _ in rates.values()]
        test = equal(f"{flat} {where}", sample, self.within, "seed")
        found.tests.append(_straight(test, own[self.flat], list(rates), lengths, self.within))
        sample = [[(g, r)] for g, r in rates.values()]
        label = f"{rises} relative to {flat} {where}"
        found.tests.append(moved(percent, label, sample, 1, "seed", shares=False))
        for seed, one in rates.items():
            found.lines.append((run, "" if seed is None else str(seed), *map(percent, one)))
        found.notes.append(f"{run}: {', '.join(map(str, lengths))} tokens")


def _straight(
    test: Test,
    curves: Mapping[Seed, Mapping[int, Number]],
    seeds: Sequence[Seed],
    lengths: Sequence[int],
    within: float,
) -> Test:
    """The test of flatness, open if the mean over seeds leaves its line by more than the margin at
    some length: a slope alone does not tell a flat curve from one that falls and rises again."""
    if test.answer != "yes":
        return test
    logs = np.log([[curves[seed][one].value for one in lengths] for seed in seeds]).mean(0)
    x = np.log2(np.asarray(lengths, dtype=float))
    off = logs - np.polyval(np.polyfit(x, logs, 1), x)
    worst = int(np.abs(off).argmax())
    if abs(off[worst]) <= math.log1p(within):
        return test
    said = f"; yet at {lengths[worst]} tokens it is {math.expm1(off[worst]):+.1%} off that line"
    needed = "A metric that changes evenly with the length, or lengths between which it does."
    return replace(test, answer="open", text=test.text + said, needed=needed)
