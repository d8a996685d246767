"""KID, Inception Score, precision, recall, density, coverage; the store of vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vistok.metrics import FeatureStore, InceptionScore, kid, prdc
from vistok.metrics.kernel import polynomial_mmd
from vistok.metrics.stored import chosen


def _features(count: int, dim: int = 32, seed: int = 0, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)) + shift


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kid_is_torch_fidelitys(dtype):
    from torch_fidelity.metric_kid import kid_features_to_metric

    x, y = _features(400, seed=1).to(dtype), _features(300, seed=2, shift=0.2).to(dtype)
    theirs = kid_features_to_metric(x, y, kid_subsets=20, kid_subset_size=100, verbose=False)
    ours = kid(x, y, subsets=20, size=100)
    assert ours.mean == pytest.approx(theirs["kernel_inception_distance_mean"], abs=1e-6)
    assert ours.std == pytest.approx(theirs["kernel_inception_distance_std"], abs=1e-6)
    assert ours.mean > 0.01 and (ours.subsets, ours.size) == (20, 100)


def test_kid_by_hand():
    x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [1.0]])  # k = (ab + 1)^3
    assert polynomial_mmd(x, y) == pytest.approx(27 + 1 - 2 * (1 + 8 + 1 + 27) / 4)
    assert abs(kid(_features(300), _features(300, seed=9), subsets=30, size=100).mean) < 0.02


@pytest.mark.parametrize("seed", [2020, None])
def test_inception_score_is_torch_fidelitys(seed):
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = 3 * _features(203, 11)
    theirs = isc_features_to_metric(logits, splits=10, shuffle=seed is not None, rng_seed=seed)
    score = InceptionScore(11, 203, seed=seed)
    for index in torch.randperm(203).split(50):
        score.update(logits[index], index)
    ours = score.compute()
    assert ours.mean == pytest.approx(theirs["inception_score_mean"], rel=1e-9)
    assert ours.std == pytest.approx(theirs["inception_score_std"], rel=1e-7)


def test_inception_score_by_hand():
    sure = 50 * torch.eye(4).repeat(5, 1)  # certain of each class equally often: the number of them
    score = InceptionScore(4, 20, splits=1)
    score.update(sure, torch.arange(20))
    assert score.compute().mean == pytest.approx(4)
    same = InceptionScore(4, 20, splits=1)
    same.update(torch.zeros(20, 4), torch.arange(20))
    assert same.compute().mean == pytest.approx(1)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_precision_and_recall_are_torch_fidelitys(k):
    from torch_fidelity.metric_prc import prc_features_to_metric

    x, y = _features(150, 4, seed=1).double(), 1.3 * _features(200, 4, seed=2).double()
    theirs = prc_features_to_metric(x, y, prc_neighborhood=k, verbose=False)
    ours = prdc(x, y, k)
    assert ours.precision == pytest.approx(theirs["precision"], abs=1e-6)
    assert ours.recall == pytest.approx(theirs["recall"], abs=1e-6)
    assert 0.2 < ours.recall < ours.precision < 1


def test_density_and_coverage_by_hand():
    real = torch.tensor([[0.0], [1.0], [3.0], [10.0]])  # radii (k = 1): 1, 1, 2, 7
    fake = torch.tensor([[0.5], [2.0], [2.0], [30.0]])
    found = prdc(fake, real, k=1, k_density=1)
    # balls: [-1, 1] [0, 2] [1, 5] [3, 17]; 0.5 is in two, each 2.0 in two, 30 in none
    assert found.density == 6 / 4 and found.precision == 3 / 4
    assert found.coverage == 3 / 4  # the last ball holds none
    # generated radii: 1.5, 0, 0, 28: [-1, 2] [2] [2] [2, 58]
    assert found.recall == 1.0


def test_equal_samples_have_a_ball_that_holds_them():
    flat = torch.full((12, 2048), 0.37)
    assert prdc(flat, flat.clone()) == (1.0, 1.0, 12 / 5, 1.0)
    told = []
    prdc(_features(30), _features(40), advance=told.append)
    assert sum(told) == 2 * (30 + 40)


def test_blocks_change_nothing(monkeypatch):
    x, y = _features(50, 6, 1), _features(64, 6, 2)
    whole = prdc(x, y)
    monkeypatch.setattr("vistok.metrics.manifold._BLOCK", 7)
    assert prdc(x, y) == whole


def test_store_keeps_order_and_refuses_what_does_not_fit():
    features = _features(10, 3)
    one, two = FeatureStore(3, cap=10), FeatureStore(3, cap=10)
    for index in torch.tensor([7, 1, 3, 9]), torch.tensor([0, 2]):
        one.update(features[index], index)
    rest = torch.tensor([8, 6, 5, 4])
    two.update(features[rest], rest)
    assert torch.equal(one.merge(two).gathered(), features)
    with pytest.raises(ValueError, match="11 feature vectors for a store of 10"):
        one.update(features[:1], torch.tensor([10]))
    twice = FeatureStore(3).update(features[:2], torch.tensor([4, 4]))
    with pytest.raises(ValueError, match="sample 4 was kept twice"):
        twice.gathered()


def test_subset_is_keyed():
    assert chosen(50, 50) is None
    some = chosen(1000, 100)
    assert len(set(some.tolist())) == 100 and (np.diff(some) > 0).all() and some.max() < 1000
    assert np.array_equal(some, chosen(1000, 100))
    assert not np.array_equal(some, chosen(1000, 100, 1))


def test_refusals_are_one_line(fails):
    with fails(ValueError, "sets of 20 and 300 samples"):
        kid(_features(20), _features(300), size=100)
    with fails(ValueError, "2 samples or more"):
        polynomial_mmd(_features(1), _features(5))
    with fails(ValueError, "more than 5 samples"):
        prdc(_features(5), _features(50))
    with fails(ValueError, "10 splits of 4 samples"):
        InceptionScore(3, 4)
    score = InceptionScore(3, 12)
    with fails(ValueError, r"expected \[B, 3\]"):
        score.update(_features(2, 4), torch.arange(2))
    with fails(ValueError, "logits are not all finite"):
        score.update(torch.full((1, 3), torch.nan), torch.arange(1))
    score.update(_features(2, 3), torch.arange(2))
    with fails(ValueError, "2 of 12 samples"):
        score.compute()
    store = FeatureStore(4)
    with fails(ValueError, r"expected \[B, 4\]"):
        store.update(_features(2, 3), torch.arange(2))
    with fails(ValueError, "not all finite"):
        store.update(torch.full((1, 4), torch.inf), torch.arange(1))
