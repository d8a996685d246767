"""Replays the recording of video distances: both divisors, both roots, the clips' preprocessing."""

from __future__ import annotations

import pytest
import torch

from vistok.frozen.clips import PRESETS
from vistok.metrics import FeatureStats, frechet_distance

CASE = "frechet_distance"


def _relative(recording, name: str) -> float:
    """The recording states some tolerances as "rel 1e-3 (...)"."""
    stated = recording.tolerance(name, "rel")
    return float(stated.split()[1]) if isinstance(stated, str) else stated


def test_moments(recording):
    io, stats = recording.io, FeatureStats.of(recording.io["feats_a"])
    close = lambda ours, key: torch.testing.assert_close(
        torch.from_numpy(ours), io[key], rtol=_relative(recording, key), atol=1e-9
    )
    close(stats.mean, "mean_a")
    close(stats.covariance(0), "cov_a_biased")
    close(stats.covariance(1), "cov_a_unbiased")


@pytest.mark.parametrize(
    ("name", "ddof"),
    [
        ("fvd_biased_svd", 0),
        ("fvd_unbiased_svd", 1),
        ("fvd_unbiased_svd_fp32", 1),
        ("fvd_unbiased_sqrtm", 1),
    ],
)
def test_distance(recording, name, ddof):
    a, b = (FeatureStats.of(recording.io[f"feats_{s}"]) for s in "ab")
    ours = frechet_distance(a, b, ddof)
    assert ours == pytest.approx(float(recording.io[name]), rel=_relative(recording, name))


@pytest.mark.parametrize("preset", ["larp", "omnitokenizer"])
def test_preprocessing(recording, preset):
    """On clips of 8 bits the two presets are one."""
    clips = recording.io["video_u8"].permute(0, 4, 1, 2, 3).float() / 255
    truth = recording.io["videogpt_preprocess"]
    ours = 2 * PRESETS[preset](clips, truth.shape[-1]) - 1
    torch.testing.assert_close(ours, truth, rtol=0, atol=recording.tolerance("rel"))
