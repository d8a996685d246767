"""The verdict of a study on the claim that pFID predicts gFID better than rFID does.

The claim is that of "Robust Latent Matters" (arXiv 2503.08354). Coefficients come from
eval/report/correlation.py; here stand the numbers that belong beside them (count, p-values, an
interval for the difference of two rank correlations over the same tokenizers) and a sentence that
claims no more than they bear.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from vistok.core.rng import Rng
from vistok.eval.report.correlation import CLAIM, Correlation, correlations
from vistok.eval.report.tables import plain
from vistok.eval.results.rows import Results
from vistok.eval.results.text import few_reasons, scale_text

_RESAMPLES = 5000
_LEVEL = 0.05
_COMPARED = ("rFID", "pFID-v1", "pFID-v1-quick", "gFID")


def verdict(results: Results) -> dict[str, Any]:
    """{"correlations": one dict each, "sentences": the conclusions that they bear}: JSON."""
    found = correlations(results)
    lines = [
        {
            "x": one.x,
            "y": one.y,
            "guidance": one.guidance,
            "probe": one.recipe,
            "n": one.n,
            "spearman": one.spearman,
            "spearman_p": one.spearman_p,
            "pearson": one.pearson,
            "pearson_p": one.pearson_p,
            "left_out": list(one.left_out),
        }
        for one in found
    ]
    said = _sentences(found) or [_NOTHING]
    return {"correlations": lines, "sentences": [*said, *_doubts(results)]}


_NOTHING = (
    "No correlation: it takes two tokenizers or more that have rFID or pFID, and gFID of "
    "generators of one recipe."
)


def _sentences(found: tuple[Correlation, ...]) -> list[str]:
    """One for each gFID (protocol, recipe) and each pair of pFID and rFID of one network and data:
    the rank correlations of both with it, over the tokenizers that have both."""
    groups: dict[tuple, list[Correlation]] = {}
    for one in found:
        if one.y == "gFID":
            groups.setdefault((one.y_protocol, one.recipe), []).append(one)
    said = []
    for group in groups.values():
        of = lambda name, group=group: [one for one in group if one.x == name]
        for p in of("pFID-v1") or of("pFID-v1-quick"):
            said += [_compared(p, r) for r in of("rFID") if _network(r) == _network(p)]
    return said


def _network(one: Correlation) -> str:
    """Network and data of x: what its title has in brackets."""
    return one.x_title.partition("[")[2]


def _compared(p: Correlation, r: Correlation) -> str:
    """The sentence on pFID and rFID as predictors of one gFID."""
    what = f"gFID at guidance {scale_text(p.guidance)}" + (f" ({p.recipe})" if p.recipe else "")
    common = set(p.generators) & set(r.generators)
    if not common:
        return (
            f"{what}: no tokenizer has both {p.x} and rFID ({p.n} and {r.n} have one of them), so "
            "the two cannot be compared; measure both with rfid and pfid among the protocols."
        )
    apart = sorted(set(p.generators) ^ set(r.generators))
    p, r = p.restricted(common), r.restricted(common)
    numbers = f"{what}: rank correlation {_told(p)} with {p.x}, {_told(r)} with rFID"
    left = f" Left out, with only one of the two: {', '.join(apart)}." if apart else ""
    return f"{numbers}. {_claim(p, r)}{left}"


def _doubts(results: Results) -> list[str]:
    """Signs that the numbers do not measure what their names say; whole sequences only."""
    said = []
    behind = _not_below(results, "gFID", "gFID-untrained")
    if behind:
        said.append(
            f"Doubt: the trained generator's gFID is not below that of fresh weights for "
            f"{', '.join(behind)}: there gFID tells how the decoder gives, not what was learned. "
            "Train tokenizers and probes longer before anything is concluded."
        )
    for name in ("pFID-v1", "pFID-v1-quick"):
        nearer = _not_below(results, "rFID", name)
        if nearer:
            said.append(
                f"Doubt: {name} is not above rFID for {', '.join(nearer)}: there swapped codes "
                "bring blurred images nearer to real ones, and it is no measure of robustness."
            )
    compared = [row for row in results.rows if row.metric in _COMPARED and row.plain]
    said += [f"Doubt: {why}; the order may be that of chance." for why in few_reasons(compared)]
    return said


def _not_below(results: Results, low: str, high: str) -> list[str]:
    """Runs whose `low` is not below their `high`, both at full length and without guidance."""
    longest: dict[tuple[str, str], tuple[int, float]] = {}
    for row in results.rows:
        counts = row.metric in (low, high) and row.guidance in (None, 1.0)
        if counts and row.value is not None:
            now = (row.length or 0, row.value)
            key = (row.run, row.metric)
            longest[key] = max(longest.get(key, now), now, key=lambda one: one[0])
    runs = dict.fromkeys(run for run, _ in longest)
    both = [run for run in runs if {(run, low), (run, high)} <= set(longest)]
    return [run for run in both if longest[run, low][1] >= longest[run, high][1]]


def _claim(p: Correlation, r: Correlation) -> str:
    """The conclusion from two correlations over the same tokenizers."""
    n = p.n
    if n < CLAIM:
        chance = (
            ""
            if n < 2
            else (f": even a perfect order of {n} has a p-value of {2 / math.factorial(n):.2g}")
        )
        them = "tokenizer" if n == 1 else "tokenizers"
        return f"With {n} {them} nothing may be claimed, whatever the coefficients{chance}."
    if p.spearman is None or r.spearman is None:
        return "A coefficient is undefined (a constant side), so nothing may be claimed."
    low, high = difference(p, r)
    if low > 0:
        which = f"here {p.x} orders the tokenizers by gFID better than rFID does"
    elif high < 0:
        which = f"here rFID orders the tokenizers by gFID better than {p.x} does"
    else:
        which = "these tokenizers do not tell which of the two predicts gFID better"
    each = [
        f"{one.x} {'goes' if one.spearman > 0 else 'goes inversely'} with gFID"
        if one.spearman_p is not None and one.spearman_p < _LEVEL
        else f"no monotone relation of {one.x} and gFID is shown"
        for one in (p, r)
    ]
    return (
        f"At the {_LEVEL:.0%} level {each[0]}, and {each[1]}; the difference of the two "
        "coefficients, each counted as 0 where it is negative (the claim is that both go with "
        f"gFID), has the 95% bootstrap interval {low:.2f} to {high:.2f}: {which}. This holds for "
        f"these {n} tokenizers, this data set, feature network and probe; it says nothing of other "
        "data or sizes, and an order is no cause."
    )


def difference(p: Correlation, r: Correlation) -> tuple[float, float]:
    """95 % percentile bootstrap interval of max(0, rho(p, gFID)) - max(0, rho(r, gFID)).

    The claim is that a lower pFID (or rFID) comes with a lower gFID, so an inverse order has no
    strength in its direction: it neither wins nor loses against no relation at all.

    Args:
        p, r: over the same tokenizers, in the same order.
    """
    from scipy.stats import rankdata

    rows = np.array([(a[1], b[1], a[2]) for a, b in zip(p.points, r.points, strict=True)])
    draws = Rng(0, "bootstrap of tokenizers").generator()
    drawn = rows[draws.integers(len(rows), size=(_RESAMPLES, len(rows)))]  # [resamples, n, 3]
    ranks = rankdata(drawn, axis=1)
    ranks -= ranks.mean(1, keepdims=True)
    spread = np.sqrt((ranks**2).sum(1))  # [resamples, 3]
    varied = (spread > 0).all(1)  # a resample of equal values has no coefficient
    ranks, spread = ranks[varied], spread[varied]
    rho = (ranks[..., :2] * ranks[..., 2:]).sum(1) / (spread[:, :2] * spread[:, 2:])
    strength = rho.clip(min=0)
    low, high = np.quantile(strength[:, 0] - strength[:, 1], [0.025, 0.975])
    return float(low), float(high)


def _told(one: Correlation) -> str:
    if one.spearman is None:
        return f"undefined (n = {one.n})"
    return f"{one.spearman:.2f} (n = {one.n}, p = {one.spearman_p:.2g}; Pearson {one.pearson:.2f})"


def verdict_text(facts: dict[str, Any]) -> str:
    """The table and the sentences for a terminal."""
    number = lambda value: "" if value is None else f"{value:.3f}"
    body = [
        [
            f"{one['x']} - {one['y']} at guidance {scale_text(one['guidance'])}",
            str(one["n"]),
            *(number(one[key]) for key in ("spearman", "spearman_p", "pearson", "pearson_p")),
        ]
        for one in facts["correlations"]
    ]
    table = plain(["correlation", "n", "Spearman", "p", "Pearson", "p"], body) if body else ""
    return "\n\n".join(filter(None, [table, *facts["sentences"]]))
