"""Fréchet distance: closed forms, torch-fidelity, merging, large means, broken input."""

from __future__ import annotations

import math
import time
import warnings

import numpy as np
import pytest
import torch

from vistok.metrics import FeatureStats, frechet_distance


def _features(count: int, dim: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(dim, dim, generator=generator) / math.sqrt(dim)
    return torch.randn(count, dim, generator=generator) @ mix + shift


def test_one_dimension_by_hand():
    a = FeatureStats.of(torch.tensor([[0.0], [2.0]]))  # mean 1, variance 2
    b = FeatureStats.of(torch.tensor([[0.0], [4.0], [8.0]]))  # mean 4, variance 16
    assert a.mean.tolist() == [1.0] and a.cov.tolist() == [[2.0]]
    assert b.cov.tolist() == [[16.0]]
    assert frechet_distance(a, b) == pytest.approx(9 + (math.sqrt(2) - 4) ** 2, abs=1e-12)


def test_agrees_with_torch_fidelity():
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    x, y = _features(3000, 96, 0).double(), _features(2000, 96, 1, shift=0.1).double()
    theirs = fid_statistics_to_metric(
        fid_features_to_statistics(x), fid_features_to_statistics(y), verbose=False
    )["frechet_inception_distance"]
    ours = frechet_distance(FeatureStats.of(x), FeatureStats.of(y))
    assert ours == pytest.approx(theirs, rel=1e-6)
    assert ours > 0.1


def test_merge_is_a_single_pass():
    x = _features(500, 24, 2, shift=3.0)
    whole, merged, uneven = FeatureStats.of(x), FeatureStats(24), FeatureStats(24)
    for part in x.split([1, 99, 0, 150, 250]):
        merged.merge(FeatureStats.of(part))
        uneven.update(part)
    for other in (merged, uneven, merged.reduce()):
        assert other.count == 500
        np.testing.assert_allclose(other.mean, whole.mean, rtol=1e-12)
        np.testing.assert_allclose(other.cov, whole.cov, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(whole.cov, np.cov(x.double().numpy(), rowvar=False), atol=1e-12)


def test_large_means_are_safe():
    x = _features(400, 8, 3).double()
    moved = FeatureStats(8)
    for part in (x + 1e8).split(37):
        moved.update(part)
    truth = np.cov((x + 1e8).numpy() - 1e8, rowvar=False)
    np.testing.assert_allclose(moved.cov, truth, atol=1e-6)


def test_zero_for_itself_and_symmetric():
    a, b = FeatureStats.of(_features(300, 32, 4)), FeatureStats.of(_features(300, 32, 5))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), abs=1e-9)


def test_rank_deficient_sets_meet_the_exact_value():
    x, y = _features(20, 64, 6).double(), _features(30, 64, 7).double()
    with pytest.warns(UserWarning, match="(20|30) samples in 64 dimensions") as seen:
        ours = frechet_distance(FeatureStats.of(x), FeatureStats.of(y))
    assert len(seen) == 2
    factors = [(s - s.mean(0)).T / math.sqrt(len(s) - 1) for s in (x, y)]
    overlap = torch.linalg.svdvals(factors[0].T @ factors[1]).sum()
    gap = ((x.mean(0) - y.mean(0)) ** 2).sum()
    truth = gap + sum((f**2).sum() for f in factors) - 2 * overlap
    assert ours == pytest.approx(float(truth), abs=1e-7)


def test_identical_images_have_no_spread():
    flat = FeatureStats.of(torch.ones(40, 16))
    spread = FeatureStats.of(_features(40, 16, 8))
    assert frechet_distance(flat, flat) == 0
    expected = float(((spread.mean - 1) ** 2).sum() + np.trace(spread.cov))
    assert frechet_distance(flat, spread) == pytest.approx(expected, rel=1e-12)


def test_ill_conditioned_covariances_keep_their_digits():
    scale = torch.logspace(0, -9, 48, dtype=torch.float64)
    x, y = (_features(4000, 48, s).double() for s in (9, 10))
    x, y = x / x.std(0), y / y.std(0)
    a, b = FeatureStats.of(x * scale), FeatureStats.of(y * scale)
    r = [torch.linalg.qr((s - s.mean(0)) * scale / math.sqrt(3999))[1] for s in (x, y)]
    overlap = torch.linalg.svdvals(r[0] @ r[1].T).sum()
    gap = float(((a.mean - b.mean) ** 2).sum())
    truth = gap + float(sum((f**2).sum() for f in r) - 2 * overlap)
    assert frechet_distance(a, b) == pytest.approx(truth, abs=1e-9)


def test_warns_only_for_few_samples():
    few, enough, more = (FeatureStats.of(_features(n, 40, n)) for n in (39, 40, 41))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frechet_distance(enough, more)
    with pytest.warns(UserWarning, match="39 samples in 40 dimensions"):
        frechet_distance(few, more)


@pytest.mark.slow
def test_2048_dimensions_in_seconds():
    a, b = FeatureStats.of(_features(2500, 2048, 0)), FeatureStats.of(_features(2500, 2048, 1))
    start = time.perf_counter()
    assert frechet_distance(a, b) > 1
    assert time.perf_counter() - start < 10  # about 2 s on two free cores


def test_saved_statistics_come_back(tmp_path):
    stats = FeatureStats.of(_features(50, 8, 0))
    stats.save(tmp_path / "s.npz")
    again = FeatureStats.load(tmp_path / "s.npz")
    assert again.count == 50
    assert np.array_equal(again.mean, stats.mean) and np.array_equal(again.cov, stats.cov)
    assert [p.name for p in tmp_path.iterdir()] == ["s.npz"]


def test_moments_are_statistics():
    stats = FeatureStats.of(_features(50, 8, 0))
    again = FeatureStats.from_moments(stats.mean, stats.cov, 50)
    assert frechet_distance(again, stats) == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="expected \\[D\\], \\[D, D\\]"):
        FeatureStats.from_moments(np.zeros(3), np.zeros((2, 2)), 5)


def test_files_that_are_not_statistics(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    np.savez(tmp_path / "a.npz", count=np.array(Trap(), dtype=object), mean=1, scatter=1)
    np.savez(tmp_path / "b.npz", mean=np.zeros(3))
    np.savez(tmp_path / "c.npz", count=4, mean=np.zeros(3), scatter=np.full((3, 3), np.nan))
    np.savez(tmp_path / "d.npz", count=4, mean=np.zeros(3), scatter=np.zeros((2, 2)))
    (tmp_path / "e.npz").write_bytes(b"no archive")
    for name in "abcde":
        with pytest.raises(ValueError, match=f"{name}.npz") as error:
            FeatureStats.load(tmp_path / f"{name}.npz")
        assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError, match="no such file"):
        FeatureStats.load(tmp_path / "f.npz")
    assert not (tmp_path / "ran").exists()


def test_errors_are_one_line():
    stats = FeatureStats(4)
    bad = torch.zeros(3, 4)
    bad[1, 2] = math.nan
    with pytest.raises(ValueError, match="1 of 3 samples are not finite \\(first: row 1\\)"):
        stats.update(bad)
    assert stats.count == 0
    with pytest.raises(ValueError, match="expected \\[B, 4\\]"):
        stats.update(torch.zeros(3, 5))
    with pytest.raises(ValueError, match="0 samples"):
        _ = stats.mean
    with pytest.raises(ValueError, match="1 samples have no covariance"):
        _ = FeatureStats.of(torch.zeros(1, 4)).cov
    with pytest.raises(ValueError, match="4 and 5 differ"):
        frechet_distance(stats, FeatureStats(5))
    with pytest.raises(ValueError, match="width 5"):
        stats.merge(FeatureStats(5))
