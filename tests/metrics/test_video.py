"""Fréchet video distance with a stub network that feels time, and the presets of clips."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vistok.frozen import VideoNetwork
from vistok.frozen.clips import preset
from vistok.metrics import FeatureStats, FrechetVideoDistance, frechet_distance


class Stub(VideoNetwork):
    """A fixed random 3D convolution, rectified and averaged: 12 features that order changes."""

    dim, side = 12, 8

    def __init__(self, clips: str = "larp") -> None:
        super().__init__("stub", "0" * 64)
        self.prepare, self.preprocess = preset(clips), clips
        weight = torch.randn(self.dim, 3, 4, 3, 3, generator=torch.Generator().manual_seed(0))
        self.register_buffer("weight", weight)
        self.freeze()

    def look(self, clips):
        return F.relu(F.conv3d(2 * clips - 1, self.weight)).mean((2, 3, 4))


def _clips(count: int, seed: int, side: int = 16) -> torch.Tensor:
    """Clips that grow brighter at their own pace, with some noise."""
    random = torch.Generator().manual_seed(seed)
    start, pace = torch.rand(2, count, 3, 1, 1, 1, generator=random)
    time = torch.linspace(0, 1, 9).view(1, 1, 9, 1, 1)
    noise = 0.05 * torch.rand(count, 3, 9, side, side, generator=random)
    return (0.6 * start + 0.3 * pace * time + noise).clamp(0, 1)


def _distance(real, decoded, ddof=1, batch=10**6, network=None) -> float:
    fvd = FrechetVideoDistance(network or Stub(), ddof)
    for clips, side in ((real, True), (decoded, False)):
        for part in clips.split(batch):
            fvd.update(part, real=side)
    return fvd.compute()


def test_identity_symmetry_and_streaming():
    a, b = _clips(40, 1), _clips(30, 2) ** 2
    assert _distance(a, a) == pytest.approx(0, abs=1e-4)
    assert _distance(a, b) == pytest.approx(_distance(b, a), rel=1e-9) and _distance(a, b) > 1e-3
    assert _distance(a, b, batch=7) == pytest.approx(_distance(a, b), rel=1e-6)


def test_merge_of_two_parts_is_one():
    a, b = _clips(40, 1), _clips(30, 2)
    left, right = FrechetVideoDistance(Stub()), FrechetVideoDistance(Stub())
    left.update(a[:13], real=True)
    right.update(a[13:], real=True)
    right.update(b, real=False)
    assert left.merge(right).compute() == pytest.approx(_distance(a, b), rel=1e-6)
    for other in (FrechetVideoDistance(Stub(), 0), FrechetVideoDistance(Stub("styleganv"))):
        with pytest.raises(ValueError, match="another network or convention"):
            left.merge(other)


def test_divisors_differ_by_a_factor():
    network, clips = Stub(), _clips(20, 3)
    stats = FeatureStats.of(network(clips))
    torch.testing.assert_close(
        torch.from_numpy(stats.covariance(0)), torch.from_numpy(stats.covariance(1)) * 19 / 20
    )
    other = _clips(20, 4) ** 2
    mean = FeatureStats.of(network(other)).mean - stats.mean
    with_n, with_less = _distance(clips, other, 0), _distance(clips, other, 1)
    gap = float(mean @ mean)
    assert with_n - gap == pytest.approx((with_less - gap) * 19 / 20, rel=1e-6)


def test_fewer_clips_than_features_stay_finite():
    with pytest.warns(UserWarning, match="(5|6) samples in 12 dimensions"):
        value = _distance(_clips(5, 1), _clips(6, 2))
    assert 0 <= value < 100


def test_the_order_of_frames_matters():
    a = _clips(60, 1)
    shuffled = a[:, :, torch.randperm(9, generator=torch.Generator().manual_seed(3))]
    assert _distance(a, a.flip(0)) < 1e-4 and _distance(a, shuffled) > 0.1


def test_bytes_and_floats_differ_by_truncation_alone():
    clips = _clips(30, 5)
    stored = (clips * 255).to(torch.uint8)  # cut down, as `omnitokenizer` does it
    cut, exact = Stub("omnitokenizer"), Stub("larp")
    assert torch.equal(cut(clips), cut(stored)) and torch.equal(cut(stored), exact(stored))
    apart = float((exact(clips) - exact(stored)).abs().max())
    assert 1e-4 < apart < 0.2
    truth = FeatureStats.of(exact(clips))
    assert frechet_distance(FeatureStats.of(exact(stored)), truth) > 0


def test_presets():
    flat = torch.full((1, 3, 2, 6, 12), 0.3)
    for name in ("larp", "omnitokenizer", "styleganv", "videogpt"):
        made, cut = preset(name)(flat, 4), name in ("omnitokenizer", "videogpt")
        assert made.shape == (1, 3, 2, 4, 4)
        assert (made - (76 / 255 if cut else 0.3)).abs().max() < 1e-6  # 255 * 0.3 = 76.5
    wide = torch.arange(12.0).expand(1, 3, 2, 4, 12) / 12
    torch.testing.assert_close(
        preset("styleganv")(wide, 4), wide[..., 4:8]
    )  # the center, untouched
    stretched = preset("larp")(wide, 4)
    assert stretched[..., 0].max() < wide[..., 2].max() and stretched[..., 3].min() > 9 / 12
    with pytest.raises(ValueError, match="unknown preset of clips 'lrap'; valid: larp, omni"):
        preset("lrap")


def test_refusals_are_one_line(fails):
    network = Stub()
    with fails(ValueError, r"expected \[B, 3, T, H, W\]"):
        network(torch.rand(2, 3, 8, 8))
    with fails(ValueError, "clamp reconstructions"):
        network(2 * _clips(2, 1) - 1)
    with fails(ValueError, "expected uint8 or 0..1 float"):
        network(torch.zeros(1, 3, 9, 8, 8, dtype=torch.int64))
