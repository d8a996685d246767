"""Intervals of claims hold a known truth as often as they say: 95 %, measured 90 % to 97 %."""

import numpy as np
import pytest

from tests.support.claims import claim, verdict
from vistok.eval.study.claims.compare import moved
from vistok.eval.study.claims.curve import area, rise
from vistok.eval.study.claims.intervals import (
    bootstrap_interval,
    count_for,
    difference_interval,
    interval_of,
    mean_interval,
    spearman,
)
from vistok.eval.study.claims.numbers import Number

LOW, HIGH = 0.90, 0.97


def share_inside(low, high, truth):
    return float(np.mean((low <= truth) & (truth <= high)))


@pytest.mark.parametrize("n", [2, 3, 5, 12])
@pytest.mark.parametrize("draw", ["normal", "uniform", "shared"])
def test_the_mean_over_seeds(n, draw):
    """Also where pairs of one seed share what that seed brought."""
    random = np.random.default_rng(n)
    if draw == "shared":  # 3 pairs of unlike spread, averaged at each seed as `paired` does
        own = random.standard_normal((4000, n, 3)) * [1, 2, 5]
        values = (own + 2 * random.standard_normal((4000, n, 1))).mean(-1)
    else:
        values = getattr(random, draw)(size=(4000, n)) - (0.5 if draw == "uniform" else 0)
    inside = share_inside(*mean_interval(values + 7), 7)
    assert LOW < inside < HIGH, inside


@pytest.mark.parametrize("over", ["log-length", "share"])
def test_the_difference_of_areas(over):
    """Curves of 3 seeds with errors that grow with the length and go together along a curve."""
    random, lengths = np.random.default_rng(1), (4, 8, 16, 32)
    truth = np.array([[40, 30, 20, 10], [36, 27, 19, 10]], dtype=float)
    noise = random.standard_normal((2000, 3, 2, 4)) * [3, 2, 1, 0.5]
    noise += 2 * random.standard_normal((2000, 3, 2, 1))
    x = np.asarray(lengths) / 32 if over == "share" else np.log(lengths)
    weights = np.zeros(4)
    weights[1:] += np.diff(x) / 2
    weights[:-1] += np.diff(x) / 2
    weights /= weights.sum()
    areas = (truth + noise) @ weights  # [trials, seeds, 2]
    assert area(lengths, (truth + noise)[0, 0, 0], over) == pytest.approx(areas[0, 0, 0])
    wanted = area(lengths, truth[1], over) - area(lengths, truth[0], over)
    assert LOW < share_inside(*mean_interval(areas[..., 1] - areas[..., 0]), wanted) < HIGH


CORRELATIONS = [  # of first and second with y, and of each other
    (0.0, 0.0, 0.0),
    (0.6, 0.6, 0.6),
    (0.9, 0.3, 0.3),
    (0.8, 0.5, 0.7),
    (0.9, -0.3, -0.2),
]


def sides(random, n, first, second, both):
    """[3, n]: first, second, y of normal tokenizers."""
    covariance = [[1, both, first], [both, 1, second], [first, second, 1]]
    return np.linalg.cholesky(covariance) @ random.standard_normal((3, n))


@pytest.mark.parametrize("n", [8, 12, 24])
def test_the_difference_of_rank_correlations(n):
    """Over several truths together, a few hundred samples of tokenizers each."""
    inside, trials = [], 120
    for number, (first, second, both) in enumerate(CORRELATIONS):
        random = np.random.default_rng(100 * n + number)
        truth = 6 / np.pi * (np.arcsin(first / 2) - np.arcsin(second / 2))
        for _ in range(trials):
            low, high = difference_interval(*sides(random, n, first, second, both))
            inside.append(low <= truth <= high)
    assert LOW < np.mean(inside) < HIGH + 0.005, np.mean(inside)


@pytest.mark.parametrize("n", [6, 8])
def test_strong_relations_of_few_tokenizers(n):
    """Where samples are often in perfect order: too wide rather than too narrow."""
    random, inside = np.random.default_rng(n), []
    truth = 6 / np.pi * (np.arcsin(0.98 / 2) - np.arcsin(0.97 / 2))
    for _ in range(150):
        low, high = difference_interval(*sides(random, n, 0.98, 0.97, 0.97))
        inside.append(low <= truth <= high)
    assert np.mean(inside) > 0.93


def test_the_bootstrap_that_is_told_beside():
    inside = []
    for number, (first, second, both) in enumerate(CORRELATIONS):
        random = np.random.default_rng(number)
        truth = 6 / np.pi * (np.arcsin(first / 2) - np.arcsin(second / 2))
        for _ in range(40):
            low, high = bootstrap_interval(*sides(random, 14, first, second, both), 600)
            inside.append(low <= truth <= high)
    assert LOW < np.mean(inside) < 0.985


def test_rank_correlations_with_ties_and_constant_sides():
    from scipy.stats import spearmanr

    x, y = [1, 1, 2, 3, 3, 4], [2, 1, 1, 5, 5, 4]
    assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic)
    assert np.isnan(spearman([1, 1, 1], [1, 2, 3]))
    assert difference_interval([1] * 6, range(6), range(6)) is None
    # One point alone makes a side vary: without it there is no coefficient.
    assert difference_interval([0, 0, 0, 0, 0, 1], range(6), range(6)) is None
    low, high = difference_interval(range(8), range(8), range(8))
    assert -0.2 < low < 0 < high < 0.2  # both in perfect order: about alike


def test_how_many_seeds_are_said_to_be_enough_are():
    """With as many as are asked for, four of five studies decide."""
    count = count_for(1.0, 1.0)
    assert count == 10  # of the usual tables of power, t(9)
    random = np.random.default_rng(0)
    low, _ = mean_interval(1 + random.standard_normal((4000, count)))
    assert 0.76 < np.mean(low > 0) < 0.86
    assert count_for(0.01, 1.0) is None and count_for(0.0, 1.0) is None
    assert interval_of([1.0]) is None


def test_growth_for_each_halving():
    curve = {n: Number(10 * 1.5**k) for k, n in enumerate((32, 16, 8, 4))}
    assert np.exp(rise(curve, (4, 8, 16, 32))) == pytest.approx(1.5)
    assert np.isnan(rise({4: Number(0.0), 8: Number(1.0)}, (4, 8)))


def test_false_claims_seldom_hold():
    """Of claims without any effect about one in forty is said to hold, and one in forty to fail."""
    random, answers = np.random.default_rng(3), []
    low, high = mean_interval(random.standard_normal((20_000, 3)))
    assert 0.021 < np.mean(high < 0) < 0.029 and 0.021 < np.mean(low > 0) < 0.029
    for moves in np.random.default_rng(3).standard_normal((60, 3)):  # the rule is that of the ends
        sample = [[(0.0, float(move))] for move in moves]
        test = moved(str, "x", sample, -1, "seed", shares=False)
        below, above = test.interval[1] < 0, test.interval[0] > 0
        assert test.answer == ("yes" if below else "no" if above else "open")
        answers.append(test.answer)
    assert set(answers) == {"yes", "no", "open"}


def test_a_claim_says_what_its_spread_would_need():
    random = np.random.default_rng(0)
    numbers = {}
    for seed in range(3):
        numbers["a", seed] = {"gFID": 20 + float(random.normal())}
        numbers["b", seed] = {"gFID": 19 + float(random.normal())}
    found = verdict(claim("paired", pairs=[["a", "b"]], lower=["gFID"]), numbers)
    assert found["verdict"] == "not decided" and "seeds, if mean and spread stay" in found["needed"]
