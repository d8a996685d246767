"""Intervals of Fréchet distances cover the truth as often as they say, in simulations.

The truth is the expected distance at the number of samples, known from all repetitions."""

import math

import numpy as np
import pytest
import torch

from vistok.metrics import FeatureStats, frechet_distance
from vistok.metrics.influence import (
    CAP,
    FeatureSample,
    drawn_error,
    error_of,
    influences,
    paired_influences,
)


def populations(kind, width, draws):
    """(root of C1 [D, D], mean m1 [D], root of C2): what is drawn, and a reference around 0."""
    spectrum = torch.logspace(0, -2, width, dtype=torch.float64).sqrt()
    turn = lambda: torch.linalg.qr(torch.randn(width, width, generator=draws).double())[0]
    reference = turn() * spectrum
    zero = torch.zeros(width, dtype=torch.float64)
    if kind == "same":
        return reference, zero, reference
    if kind == "near":
        noise = 0.1 * torch.randn(width, width, generator=draws).double() / math.sqrt(width)
        return (torch.eye(width) + noise) @ reference, zero + 0.1, reference
    return turn() * spectrum.flip(0), zero + 0.5, reference


@pytest.mark.parametrize("heavy", [False, True], ids=["gaussian", "heavy"])
@pytest.mark.parametrize(
    ("kind", "width", "count"),
    [("same", 24, 300), ("near", 24, 300), ("far", 24, 300), ("near", 24, 100), ("same", 32, 24)],
)
def test_a_generators_distance_is_covered(kind, width, count, heavy):
    """Reference known exactly; heavy: scales of samples vary, so features are not Gaussian."""
    draws = torch.Generator().manual_seed(1)
    root, mean, other = populations(kind, width, draws)
    reference = FeatureStats.from_moments(
        torch.zeros(width).numpy(), (other @ other.T).numpy(), 10**6
    )
    values, errors = [], []
    for _ in range(400):
        noise = torch.randn(count, width, generator=draws).double()
        if heavy:
            scale = (0.4 * torch.randn(count, 1, generator=draws).double()).exp()
            noise = noise * scale / math.exp(0.16)
        features = noise @ root.T + mean
        own = FeatureStats.of(features)
        values.append(quiet(own, reference))
        errors.append(drawn_error(features[:, None], count, own, reference))
    covered = coverage(values, errors)
    assert 0.9 <= covered <= (0.98 if heavy or count < 5 * width else 0.97), covered


@pytest.mark.parametrize(("noise", "count"), [(0.05, 300), (0.3, 300), (0.3, 100)])
def test_a_reconstructions_distance_is_covered(noise, count, width=24):
    """An image that is drawn stands on both sides."""
    draws = torch.Generator().manual_seed(2)
    _, _, root = populations("same", width, draws)
    values, errors = [], []
    for _ in range(400):
        real = torch.randn(count, width, generator=draws).double() @ root.T
        made = (1 - noise) * real + noise * torch.randn(count, width, generator=draws).double()
        own, other = FeatureStats.of(made), FeatureStats.of(real)
        values.append(quiet(own, other))
        found = paired_influences(made[:, None], real[:, None], own, other)
        assert float(found[1].abs().max()) == 0  # every image was reconstructed
        errors.append(error_of(found, count))
    assert 0.9 <= coverage(values, errors) <= 0.97


def test_a_part_of_the_images_against_all_of_them(width=16, count=100, every=400):
    draws = torch.Generator().manual_seed(3)
    _, _, root = populations("same", width, draws)
    values, errors = [], []
    for _ in range(400):
        real = torch.randn(every, width, generator=draws).double() @ root.T
        made = 0.8 * real[:count] + 0.1
        own, other = FeatureStats.of(made), FeatureStats.of(real)
        values.append(quiet(own, other))
        found = paired_influences(made[:, None], real[:count, None], own, other)
        errors.append(error_of(found, count))
    assert 0.9 <= coverage(values, errors) <= 0.97


def quiet(a, b):
    import warnings

    with warnings.catch_warnings():  # fewer samples than features are meant here
        warnings.simplefilter("ignore")
        return frechet_distance(a, b)


def coverage(values, errors):
    values, errors = torch.tensor(values), torch.tensor(errors)
    return float(((values - values.mean()).abs() < 1.96 * errors).double().mean())


@pytest.mark.parametrize("width", [6, 30], ids=["full rank", "fewer samples than features"])
def test_influence_is_the_change_when_a_sample_gains_weight(width, count=24, step=1e-5):
    draws = torch.Generator().manual_seed(0)
    x, y = (torch.randn(count, width, generator=draws).double() + shift for shift in (0, 0.5))
    own, other = FeatureStats.of(x), FeatureStats.of(y)
    found, base = influences(x[:, None], own, other), quiet(own, other)
    for sample, influence in zip(x[:4].numpy(), found[:4], strict=True):
        gap = sample - own.mean
        cov = (1 - step) * (own.cov + step * np.outer(gap, gap))
        heavier = FeatureStats.from_moments(own.mean + step * gap, cov, count)
        change = (quiet(heavier, other) - base) / step
        assert change == pytest.approx(float(influence), rel=1e-3, abs=1e-3)


def test_frames_of_a_clip_are_one_sample():
    draws = torch.Generator().manual_seed(0)
    clips = torch.randn(50, 1, 4, generator=draws).expand(-1, 5, -1)  # five equal frames
    other = FeatureStats.of(torch.randn(200, 4, generator=draws))
    frames, single = FeatureStats.of(clips.flatten(0, 1)), FeatureStats.of(clips[:, 0])
    as_clips = error_of(influences(clips, frames, other), 50)
    assert as_clips == pytest.approx(error_of(influences(clips[:, :1], single, other), 50), rel=0.1)
    as_images = error_of(influences(clips.flatten(0, 1)[:, None], frames, other), 250)
    assert as_images < 0.5 * as_clips


def test_a_sample_is_keyed_and_resumes():
    numbers = torch.arange(0, 30_000, 10)
    sample, features = FeatureSample(2, numbers), torch.randn(3000, 2)
    assert len(sample.numbers) == CAP and sample.total == 3000
    assert torch.isin(sample.numbers, numbers).all()
    sample.update(features[1000:], numbers[1000:])
    other = FeatureSample(2, numbers)
    other.load_state_dict(sample.state_dict())
    other.update(features[:1000], numbers[:1000])
    expected = features[torch.isin(numbers, sample.numbers)]
    assert torch.equal(other.gathered(), expected[:, None])
    with pytest.raises(ValueError, match="has"):
        sample.gathered()


def test_frames_are_kept_with_their_clip():
    sample = FeatureSample(2, 3, together=2)
    features = torch.arange(12.0).view(6, 2)
    order = torch.tensor([4, 1, 0, 5, 3, 2])
    sample.update(features[order], order)
    assert torch.equal(sample.gathered(), features.view(3, 2, 2))
