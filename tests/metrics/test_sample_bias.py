"""The expected Fréchet distance of two sets of one distribution, against drawn ones."""

import numpy as np
import pytest
import torch

from vistok.metrics import FeatureStats, frechet_distance
from vistok.metrics.sample_bias import bias_factor


def test_one_dimension_by_hand():
    """(m1 - m2)^2 + (s1 - s2)^2 of n normal numbers a side: 2/n + 2/(2 n) = 3/n."""
    assert bias_factor(np.array([[1.0]])) * 2 / 100 == pytest.approx(0.03)
    assert bias_factor(np.zeros((3, 3))) == 0


@pytest.mark.parametrize(("counts", "within"), [((400, 400), 0.06), ((2000, 400), 0.06)])
def test_what_equal_distributions_score(counts, within):
    """The mean over 20 pairs of sets, with the covariance of the distribution and of a sample."""
    width, found = 32, []
    scale = torch.arange(1, width + 1, dtype=torch.float64) ** -0.6
    turn = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(9)))[0]
    turn = turn.double() * scale
    for seed in range(20):
        draws = torch.Generator().manual_seed(seed)
        sets = [
            FeatureStats.of(torch.randn(n, width, generator=draws, dtype=torch.float64) @ turn.T)
            for n in counts
        ]
        found.append(frechet_distance(*sets))
    both = sum(1 / n for n in counts)
    assert bias_factor((turn @ turn.T).numpy()) * both == pytest.approx(np.mean(found), rel=within)
    estimated = bias_factor(sets[1].cov, sets[1].count) * both
    assert estimated == pytest.approx(np.mean(found), rel=0.1)


def test_a_round_distribution_is_recognized():
    """Sample eigenvalues of equal ones spread from 0.04 to 3.2 here: they are drawn together."""
    draws = torch.Generator().manual_seed(0)
    sample = FeatureStats.of(torch.randn(100, 64, generator=draws, dtype=torch.float64))
    exact = bias_factor(np.eye(64))
    assert bias_factor(sample.cov, sample.count) == pytest.approx(exact, rel=0.05)
    assert bias_factor(sample.cov) < 0.8 * exact
