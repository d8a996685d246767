"""Does rFID or pFID of tokenizers predict gFID of generators? Rank and linear correlation.

A point is a tokenizer at its full length: x is its rFID (or pFID), y the gFID of a generator of its
tokens. Points are joined through facts["pairs"], and rows of different protocols never stand in one
correlation: each combination of networks, images, counts, sampling settings and generator recipe
has its own. A tokenizer's length and codebook are its own properties, not the protocol's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from vistok.eval.results.compare import protocol_of
from vistok.eval.results.facts import Scale
from vistok.eval.results.metrics import names
from vistok.eval.results.rows import Results, Row

FEWEST = 3  # points of a coefficient: through two points there is always a line
CLAIM = 5  # points below which nothing may be concluded, whatever the coefficient
_EXACT = 7  # points up to which the rank test runs over all permutations: 7! = 5040


@dataclass(frozen=True)
class Correlation:
    """x against y over tokenizers, under one protocol each."""

    x: str
    y: str
    points: tuple[tuple[str, float, float], ...]  # (run, x, y), by name
    spearman: float | None = None  # None: fewer than 3 points, or one side is constant
    pearson: float | None = None
    spearman_p: float | None = None  # two-sided; exact up to 7 points, else by Student's t
    pearson_p: float | None = None
    x_title: str = ""  # as displayed, with network and data
    y_title: str = ""
    guidance: Scale | None = None  # of y
    recipe: str = ""  # of the generators: probe-tiny, ..., or "" for runs of the user's own
    left_out: tuple[str, ...] = ()  # runs without a finite value on either side
    generators: tuple[str, ...] = ()  # of the points: what two correlations are joined by
    y_protocol: str = ""  # all that must agree on y's side, as JSON

    @property
    def n(self) -> int:
        return len(self.points)

    def restricted(self, generators: Collection[str]) -> Correlation:
        """The same over some of its points, in the generators' order, with their coefficients."""
        order = sorted(range(self.n), key=lambda i: self.generators[i])
        kept = [i for i in order if self.generators[i] in generators]
        points = tuple(self.points[i] for i in kept)
        return replace(
            self,
            points=points,
            generators=tuple(self.generators[i] for i in kept),
            **coefficients([p[1] for p in points], [p[2] for p in points]),
        )


def correlations(results: Results) -> tuple[Correlation, ...]:
    """All pairs (x metric, y metric) that have two points or more, one for each protocol."""
    found = []
    owners = _owners(results.facts.get("pairs") or {})
    for y in names(lambda one: one.predicts == "y"):
        ends = _by_protocol(_longest(results.rows, y))
        for x in names(lambda one: one.predicts == "x"):
            starts = _by_protocol(_longest(results.rows, x))
            for own in starts.values():
                at = {row.run: row for row in own}
                for protocol, group in ends.items():
                    for recipe, rows in _by_recipe(group, owners).items():
                        joined = [(at[owners[r.run]], r) for r in rows if owners[r.run] in at]
                        if len(joined) > 1:
                            found.append(_correlation(joined, recipe, protocol))
    return tuple(found)


def coefficients(x: Sequence[float], y: Sequence[float]) -> dict[str, float | None]:
    """Spearman and Pearson with their p-values; None where they are undefined."""
    names = ("spearman", "spearman_p", "pearson", "pearson_p")
    if len(x) < FEWEST or len(set(x)) < 2 or len(set(y)) < 2:
        return dict.fromkeys(names)
    from scipy.stats import PermutationMethod, pearsonr, rankdata, spearmanr

    rank, line = spearmanr(x, y), pearsonr(x, y)
    rank_p = rank.pvalue
    if len(x) <= _EXACT:  # Student's t is far off here: it gives 0 for three points in order
        every = PermutationMethod(n_resamples=math.factorial(len(x)))
        rank_p = pearsonr(rankdata(x), rankdata(y), method=every).pvalue
    values = (rank.statistic, rank_p, line.statistic, line.pvalue)
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def _correlation(joined: Sequence[tuple[Row, Row]], recipe: str, y_protocol: str) -> Correlation:
    several = len({x.run for x, _ in joined}) < len(joined)  # two generators of one tokenizer
    name = lambda x, y: y.run if several else x.run
    finite = [(x, y) for x, y in joined if x.value is not None and y.value is not None]
    lost = [name(x, y) for x, y in joined if x.value is None or y.value is None]
    ordered = sorted((name(x, y), x.value, y.value, y.run) for x, y in finite)
    points = [one[:3] for one in ordered]
    x, y = joined[0]
    return Correlation(
        x=x.metric,
        y=y.metric,
        points=tuple(points),
        x_title=x.display,
        y_title=y.display,
        guidance=y.guidance,
        recipe=recipe,
        left_out=tuple(sorted(lost)),
        generators=tuple(one[3] for one in ordered),
        y_protocol=y_protocol,
        **coefficients([p[1] for p in points], [p[2] for p in points]),
    )


def _owners(pairs: dict[str, Sequence[str]]) -> dict[str, str]:
    """{generator: its tokenizer}."""
    return {generator: owner for owner, names in pairs.items() for generator in names}


def _longest(rows: Iterable[Row], metric: str) -> list[Row]:
    """Each run's rows of a metric at the greatest length that has one."""
    mine = [row for row in rows if row.metric == metric and row.plain]
    most: dict[str, int] = {}
    for row in mine:
        most[row.run] = max(most.get(row.run, 0), row.length or 0)
    return [row for row in mine if (row.length or 0) == most[row.run]]


def _by_protocol(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows grouped by all that must agree, in order of appearance."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        key = json.dumps(protocol_of(row), sort_keys=True, default=str)
        groups.setdefault(key, []).append(row)
    return groups


def _by_recipe(rows: Sequence[Row], owners: dict[str, str]) -> dict[str, list[Row]]:
    """Generators of one recipe: a probe is named TOKENIZER/RECIPE, any other run is the user's."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        owner = owners.get(row.run)
        if owner is None:
            continue
        start = f"{owner}/"
        recipe = row.run.removeprefix(start) if row.run.startswith(start) else ""
        groups.setdefault(recipe, []).append(row)
    return groups
