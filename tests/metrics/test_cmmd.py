"""CMMD: against its formula, blocks, its estimate from moments, and what must be refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import vistok.metrics.cmmd as module
from vistok.metrics import FeatureStats
from vistok.metrics.cmmd import REMAINDER, cmmd, cmmd_of_statistics


def unit(count: int, dim: int = 24, seed: int = 0, shift: float = 0.0) -> torch.Tensor:
    """Unit vectors around one direction, as image embeddings of CLIP are."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, dim, generator=generator) * 0.2
    x[:, 0] += 1
    x[:, 1] += shift
    return F.normalize(x, dim=1)


def by_formula(x: torch.Tensor, y: torch.Tensor) -> float:
    """The three means over all pairs, in fp64."""
    kernel = lambda a, b: torch.exp(
        -(torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist") ** 2) / 200
    )
    x, y = x.double(), y.double()
    return float(1000 * (kernel(x, x).mean() + kernel(y, y).mean() - 2 * kernel(x, y).mean()))


@pytest.mark.parametrize("shift", [0.0, 0.05, 2.0])
def test_the_formula(shift):
    x, y = unit(300), unit(211, seed=1, shift=shift)
    assert cmmd(x, y) == pytest.approx(by_formula(x, y), rel=1e-4, abs=1e-6)
    assert cmmd(x, y) == pytest.approx(cmmd(y, x), rel=1e-6, abs=1e-9)


def test_by_hand():
    """One vector and its opposite: |x - y|^2 = 4, so 2 - 2 exp(-4 / 200), times 1000."""
    x = torch.tensor([[1.0, 0.0]])
    assert cmmd(x, -x) == pytest.approx(1000 * 2 * (1 - 0.9801986733067553), rel=1e-6)
    assert cmmd(x, x) == 0.0
    y = torch.tensor([[0.0, 1.0], [0.0, -1.0]])  # each sample is paired with itself too
    k = {0: 1.0, 2: 0.9900498337491681, 4: 0.9801986733067553}
    wanted = 1000 * (k[0] + (2 * k[0] + 2 * k[4]) / 4 - 2 * k[2])
    assert cmmd(x, y) == pytest.approx(wanted, rel=1e-4)


def test_blocks_change_nothing(monkeypatch):
    x, y = unit(100), unit(70, seed=1, shift=0.3)
    whole = cmmd(x, y)
    monkeypatch.setattr(module, "_BLOCK", 16)
    rows = []
    assert cmmd(x, y, rows.append) == pytest.approx(whole, rel=1e-6)
    assert sum(rows) == 100 + 100 + 70 and max(rows) == 16


def test_equal_sets_are_at_zero_and_the_bias_is_as_told():
    x = unit(500)
    assert cmmd(x, x.clone()) == pytest.approx(0, abs=1e-7)
    assert cmmd(x, x[torch.randperm(500)]) == pytest.approx(0, abs=1e-6)
    values = [cmmd(unit(200, seed=2 * i), unit(200, seed=2 * i + 1)) for i in range(20)]
    apart = -torch.expm1(-(torch.cdist(x.double(), x.double()) ** 2) / 200)
    told = 1000 * (2 / 200) * float(apart.sum()) / (500 * 499)
    assert sum(values) / 20 == pytest.approx(told, rel=0.1)
    assert cmmd(x, unit(500, seed=5, shift=0.5)) > 20 * told


@pytest.mark.parametrize("shift", [0.0, 0.05, 2.0])
def test_from_means_and_covariances(shift):
    x, y = unit(400), unit(300, seed=1, shift=shift)
    exact, near = by_formula(x, y), cmmd_of_statistics(FeatureStats.of(x), FeatureStats.of(y))
    assert 0 <= exact - near < REMAINDER < 0.0007
    assert near == pytest.approx(exact, rel=1e-3)
    spread = FeatureStats(24)
    for part in y.split(37):
        spread.update(part)
    again = cmmd_of_statistics(FeatureStats.of(x), spread)
    assert again == pytest.approx(near, rel=1e-9)


def test_the_bound_holds_for_opposite_sets():
    x = unit(50)
    exact, near = by_formula(x, -x), cmmd_of_statistics(FeatureStats.of(x), FeatureStats.of(-x))
    assert 1e-4 < exact - near < REMAINDER


def test_refusals_are_one_line(fails):
    with fails(ValueError, r"CMMD of \(4, 24\) and \(4, 23\)"):
        cmmd(unit(4), unit(4, 23))
    with fails(ValueError, r"CMMD of \(0, 24\)"):
        cmmd(unit(4)[:0], unit(4))
    with fails(ValueError, "not all finite"):
        cmmd(unit(4), torch.full((3, 24), torch.nan))
    long = FeatureStats.of(unit(40) * 2)
    with fails(ValueError, "squared length is 4 on average; expected embeddings of length 1"):
        cmmd_of_statistics(long, long)
    with fails(ValueError, "widths 24 and 23"):
        cmmd_of_statistics(FeatureStats.of(unit(40)), FeatureStats.of(unit(40, 23)))
