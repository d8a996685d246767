"""Runs with and without something, seed by seed: do numbers fall, rise, or stay about equal?

The sample is the seeds: at each, differences are averaged over the pairs, and the mean of those has
Student's interval. That holds whatever two pairs of one seed share, and it speaks of these pairs
alone. `over: pairs` turns it around: differences are averaged over the seeds, the sample is the
pairs, and the statement is one about tokenizers like these.

"Lower" is decided by the interval of the difference: wholly below 0 is yes, wholly above is no, and
so is an interval within `negligible` of the numbers without. "About equal" is decided by the ratio
(its logarithm): an interval wholly within the margin is yes, wholly outside is no.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from vistok.core.errors import InputError
from vistok.eval.results.metrics import shown
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
from vistok.eval.study.claims.compare import Sides, equal, form_of, moved
from vistok.eval.study.claims.numbers import Numbers, Seed

Pair = tuple[str, str]
Table = Mapping[Pair, Mapping[Seed, Sides]]
"""{pair: {seed: (without, with)}}."""


class PairsConfig(ClaimBase):
    """A claim on runs with and without something."""

    pairs: tuple[Annotated[tuple[str, ...], Field(min_length=2, max_length=2)], ...] = Field(
        min_length=1
    )
    """Pairs of runs: [without, with]."""
    lower: tuple[str, ...] = ()
    """Metrics that are claimed to be lower with it."""
    higher: tuple[str, ...] = ()
    """Metrics that are claimed to be higher with it."""
    equal: dict[str, Annotated[float, Field(gt=0, lt=1)]] = {}
    """Metrics that are claimed to be about equal, with the share that they may differ by."""
    negligible: float = Field(default=0.0, ge=0, lt=1)
    """Share of the number without, below which a difference counts as none: an interval within it
    refutes the claim. 0: only a difference of the other sign does."""
    over: Literal["seeds", "pairs"] = "seeds"
    """The sample: seeds of these pairs, or pairs like these (no run in two of them)."""

    @field_validator("lower", "higher", "equal")
    @classmethod
    def _known(cls, names: Any) -> Any:
        known_metrics(tuple(names))
        return names

    @model_validator(mode="after")
    def _asks(self) -> PairsConfig:
        names = self.measured
        if not names:
            raise InputError(f"{self.id}: nothing is claimed; name metrics in lower, higher, equal")
        if len(set(names)) < len(names):
            raise InputError(f"{self.id}: a metric is named twice among lower, higher and equal")
        for without, with_ in self.pairs:
            if without == with_:
                raise InputError(f"{self.id}: pairs: [{without}, {with_}] is one run twice")
        every = [name for pair in self.pairs for name in pair]
        if self.over == "pairs" and len(set(every)) < len(every):
            twice = next(name for name in every if every.count(name) > 1)
            raise InputError(
                f"{self.id}: over=pairs: {twice} stands in several pairs, which are then not "
                "independent; give each pair two runs of its own, or take over: seeds"
            )
        return self

    @property
    def compared(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for pair in self.pairs for name in pair))

    @property
    def measured(self) -> tuple[str, ...]:
        return (*self.lower, *self.higher, *self.equal)

    def read(self, numbers: Numbers) -> Reading:
        return read_pairs(self, numbers, self.pairs)


@register_claim
class PairedClaimConfig(PairsConfig):
    """Runs with and without something, seed by seed."""

    kind: Literal["paired"] = "paired"


def read_pairs(claim: PairsConfig, numbers: Numbers, pairs: Sequence[Pair]) -> Reading:
    """The tests of all metrics over these pairs; the pairs one by one are told beside."""
    found = Collected()
    for name in claim.measured:
        table = differences(numbers, pairs, name)
        found.missing += [f"{name} of {one}" for one in _missing(numbers, pairs, name)]
        if not table:
            continue
        tests = {"": _test(claim, name, table, _whole(list(table)))}
        for pair, own in table.items():
            one = _test(claim, name, {pair: own}, f"{pair[1]} against {pair[0]}", "seeds")
            tests[" ".join(reversed(pair))] = replace(one, asked=False)
        found.tests += tests.values() if len(table) > 1 else [tests[""]]
        found.lines += _lines(name, table)
        found.charts.append(_chart(claim, name, table, tests))
    found.notes += numbers.notes
    header = ("metric", "pair", "seed", "without", "with", "difference")
    return found.reading(header, _scope(claim, numbers, pairs))


def differences(
    numbers: Numbers, pairs: Sequence[Pair], name: str
) -> dict[Pair, dict[Seed, Sides]]:
    """{pair: {seed: (without, with)}} of the seeds at which both were measured."""
    found: dict[Pair, dict[Seed, Sides]] = {}
    for pair in map(tuple, pairs):
        for seed in numbers.common_seeds(pair):
            sides = tuple(numbers.value(run, seed, name) for run in pair)
            if None not in sides:
                found.setdefault(pair, {})[seed] = sides
    return found


def _missing(numbers: Numbers, pairs: Sequence[Pair], name: str) -> list[str]:
    """Runs without the metric at any seed, and pairs without a seed in common."""
    lost = [
        run
        for run in dict.fromkeys(run for pair in pairs for run in pair)
        if all(numbers.value(run, seed, name) is None for seed in numbers.seeds(run))
    ]
    for pair in map(tuple, pairs):
        known = not set(pair) & set(lost)
        if known and not differences(numbers, [pair], name):
            lost.append(f"{pair[1]} and {pair[0]} at one seed")
    return lost


def _test(
    claim: PairsConfig,
    name: str,
    table: Table,
    what: str,
    over: str | None = None,
) -> Test:
    over = over or claim.over
    sides = _sample(table, over)
    unit = "seed" if over == "seeds" else "pair"
    label = f"{title(name)} of {what}"
    if name in claim.equal:
        return equal(label, sides, claim.equal[name], unit)
    sign = -1 if name in claim.lower else 1
    return moved(form_of(name), label, sides, sign, unit, claim.negligible)


def _sample(table: Table, over: str) -> list[list[Sides]]:
    """The independent units, each with the sides that are averaged in it: of a seed those of all
    pairs (at seeds that all of them have), of a pair those of all its seeds."""
    if over == "pairs":
        return [list(own.values()) for own in table.values()]
    first, *others = [list(own) for own in table.values()]
    common = [seed for seed in first if all(seed in other for other in others)]
    return [[own[seed] for own in table.values()] for seed in common]


def _whole(pairs: Sequence[Pair]) -> str:
    if len(pairs) == 1:
        return f"{pairs[0][1]} against {pairs[0][0]}"
    return f"{len(pairs)} pairs, on average"


def _scope(claim: PairsConfig, numbers: Numbers, pairs: Sequence[Pair]) -> str:
    seeds = numbers.common_seeds(dict.fromkeys(run for pair in pairs for run in pair))
    if claim.over == "pairs":
        return counted(len(pairs), "pair")
    return f"{counted(len(seeds), 'seed')} of {counted(len(pairs), 'pair')}"


def _lines(name: str, table: Table) -> list[tuple[str, ...]]:
    lines = []
    for (without, with_), own in table.items():
        for seed, (before, after) in own.items():
            text = form_of(name)(after - before)
            who = "" if seed is None else str(seed)
            sides = (shown(before, name), shown(after, name))
            lines.append((title(name), f"{without} → {with_}", who, *sides, text))
    return lines


def _chart(
    claim: PairsConfig, name: str, table: Table, tests: Mapping[str, Test]
) -> dict[str, Any]:
    """Differences of each pair: a dot a seed, the mean and its interval."""
    margin = claim.equal.get(name)
    turn = (lambda a, b: b / a - 1) if margin else (lambda a, b: b - a)
    rows = []
    for pair, own in table.items():
        dots = [turn(*sides) for sides in own.values() if not margin or sides[0] > 0]
        rows.append(_row(f"{pair[1]}", dots, tests[pair[1] + " " + pair[0]]))
    if len(table) > 1:
        rows.append(_row("on average", [], tests[""]))
    return {
        "kind": "differences",
        "metric": name,
        "title": f"{title(name)}: with {'relative to' if margin else 'minus'} without",
        "text": "dots: seeds; bars: 95% interval" + ("; gray: about equal" if margin else ""),
        "share": margin is not None,
        "band": None if margin is None else [-margin, margin],
        "rows": rows,
    }


def _row(name: str, dots: list[float], test: Test) -> dict[str, Any]:
    interval = None if test.interval is None else list(test.interval)
    return {"name": name, "dots": dots, "mean": test.value, "interval": interval}
