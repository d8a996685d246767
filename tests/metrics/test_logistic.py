"""The linear probe's solver: known optima, no dependence on scale, offset or order."""

import pytest
import torch

from vistok.metrics.logistic import fit


def clouds(count: int = 300, width: int = 4, seed: int = 0):
    """Three classes around the corners of a triangle, in the first two of `width` features."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    centers = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 4.0]])
    features = torch.randn((count, width), generator=generator)
    features[:, :2] += centers[labels]
    return features, labels


def test_finds_what_is_linear():
    probe = fit(*clouds(), 3)
    assert probe.top1(*clouds(seed=1)) > 0.98


def test_noise_says_nothing():
    features, labels = clouds(900)
    probe = fit(features[:, 2:], labels, 3)
    other, truth = clouds(900, seed=1)
    assert probe.top1(other[:, 2:], truth) == pytest.approx(1 / 3, abs=0.05)


def test_scale_and_offset_change_nothing():
    features, labels = clouds()
    other, _ = clouds(seed=1)
    factor, offset = torch.tensor([1e-3, 1e3, 7.0, 1.0]), torch.tensor([5.0, -3.0, 0.0, 100.0])
    plain = fit(features, labels, 3).classify(other)
    moved = fit(features * factor + offset, labels, 3).classify(other * factor + offset)
    assert (plain == moved).double().mean() > 0.99


def test_the_optimum_is_stationary():
    features, labels = clouds()
    probe = fit(features, labels, 3, penalties=(0.1,))
    x = ((features - probe.mean) / probe.scale).double()
    share = (x @ probe.weight.double() + probe.bias.double()).softmax(1)
    error = (share - torch.nn.functional.one_hot(labels, 3)) / len(labels)
    slope = x.T @ error + 0.1 * probe.weight.double()
    assert slope.abs().max() < 1e-4 and error.sum(0).abs().max() < 1e-4


def test_constant_features_and_inference_mode():
    with torch.inference_mode():
        features, labels = clouds()
        features[:, 3] = 2.0
        assert fit(features, labels, 3).top1(features, labels) > 0.98


def test_wrong_labels(fails):
    features, labels = clouds()
    with fails(ValueError, "0 to 2", r"0\.\.1"):
        fit(features, labels, 2)
