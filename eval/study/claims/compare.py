"""Two sides compared over a sample of seeds or pairs: moved one way, or about equal?

A unit of the sample (a seed, a pair) holds one or several (before, after); differences, or the
logarithms of ratios, are averaged in it, and units are independent of each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from vistok.eval.results.text import signed
from vistok.eval.study.claims.base import FEWEST, Answer, Test, counted
from vistok.eval.study.claims.intervals import Interval, count_for, interval_of

Sides = tuple[float, float]
Sample = Sequence[Sequence[Sides]]


Form = Callable[[float], str]


def form_of(name: str) -> Form:
    """Text of a difference in the digits of a metric, with its sign."""
    return lambda value: signed(value, name)


def moved(
    form: Form,
    label: str,
    sample: Sample,
    sign: int,
    unit: str,
    negligible: float = 0.0,
    shares: bool = True,
) -> Test:
    """Is a number lower (sign -1) or higher (1) afterwards?

    Args:
        form: text of a difference. label: what is compared.
        unit: "seed" or "pair". negligible: share of the number before that counts as none.
        shares: also as a share of the number before.
    """
    moves = [float(np.mean([after - before for before, after in unit_])) for unit_ in sample]
    base = float(np.mean([before for unit_ in sample for before, _ in unit_])) if sample else 0.0
    n = len(moves)
    mean = float(np.mean(moves)) if moves else math.nan
    interval = interval_of(moves)
    want, other = ("lower", "higher") if sign < 0 else ("higher", "lower")
    if n == 0:
        text = f"{label}: no seed that all pairs have"
        return Test(label, "open", text, needed="The same seeds of all pairs.")
    share = f" ({mean / base:+.1%})" if base and shares else ""
    told = f"{label}: {form(mean)}{share}"
    if interval is None:
        text = f"{told} with one {unit}, which has no interval"
        return Test(label, "open", text, mean, None, n, f"A second {unit}; better {FEWEST}.")
    low, high = interval
    told += f", 95% interval {form(low)} to {form(high)} over {counted(n, unit)}"
    if low == high:
        return constant(label, told, mean, interval, n, unit)
    inside = negligible * abs(base)
    toward = (low, high) if sign > 0 else (-high, -low)
    if toward[0] > 0 and not (inside and toward[1] < inside):
        answer, says = "yes", want
    elif toward[1] < 0:
        answer, says = "no", other
    elif inside and max(abs(low), abs(high)) <= inside:
        answer, says = "no", f"no difference beyond {negligible:.0%}"
    else:
        answer, says = "open", f"neither {want} nor {other} is shown"
    needed = "" if answer != "open" else more(abs(mean), float(np.std(moves, ddof=1)), n, unit)
    return Test(label, answer, f"{told}: {says}", mean, interval, n, needed)


def equal(label: str, sample: Sample, margin: float, unit: str) -> Test:
    """Is a number about equal afterwards, within a share of it? Ratios, by their logarithms."""
    if any(min(sides) <= 0 for unit_ in sample for sides in unit_):
        text = f"{label}: not above 0, so that ratios say nothing"
        return Test(label, "open", text, n=len(sample), needed="A metric above 0.")
    logs = [float(np.mean([math.log(after / before) for before, after in one])) for one in sample]
    n = len(logs)
    if n == 0:
        text = f"{label}: no seed that all pairs have"
        return Test(label, "open", text, needed="The same seeds of all pairs.")
    mean, interval = float(np.mean(logs)), interval_of(logs)
    told = f"{label}: {math.expm1(mean):+.1%}"
    if interval is None:
        text = f"{told} with one {unit}, which has no interval"
        needed = f"A second {unit}; better {FEWEST}."
        return Test(label, "open", text, math.expm1(mean), None, n, needed)
    low, high = interval
    ratio = (math.expm1(low), math.expm1(high))
    told += f", 95% interval {ratio[0]:+.1%} to {ratio[1]:+.1%} over {counted(n, unit)}"
    least, most = math.log1p(-margin), math.log1p(margin)
    inside = f"within {margin:.0%}"
    answer: Answer = "open"
    says = f"neither {inside} nor outside is shown"
    if low >= least and high <= most:
        answer, says = "yes", f"{inside}, about equal"
    elif high < least or low > most:
        answer, says = "no", f"not {inside}"
    needed = ""
    if answer == "open":
        border = min(abs(mean - least), abs(most - mean))
        needed = more(border, float(np.std(logs, ddof=1)), n, unit)
    return Test(label, answer, f"{told}: {says}", math.expm1(mean), ratio, n, needed)


def constant(label: str, told: str, mean: float, interval: Interval, n: int, unit: str) -> Test:
    """Differences that are the same each time: there is no spread to judge by."""
    why = "both sides are equal each time; are the two runs one?" if mean == 0 else "no spread"
    text = f"{told}: the same with every {unit} ({why}), so nothing is decided"
    needed = f"{unit.capitalize()}s whose numbers differ."
    return Test(label, "open", text, mean, interval, n, needed)


def more(distance: float, spread: float, n: int, unit: str) -> str:
    """How many seeds or pairs this spread would take."""
    count = count_for(distance, spread)
    if count is None:
        return (
            f"With this spread ({unit}s differ by more than the effect) even 1000 {unit}s would "
            "hardly decide."
        )
    return f"About {max(count, n + 1)} {unit}s, if mean and spread stay as they are here."
