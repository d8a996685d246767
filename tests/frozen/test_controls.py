"""Controls of feature networks: the same numbers everywhere, and what they see."""

from __future__ import annotations

import pytest
import torch

from vistok.frozen import feature_network


@pytest.mark.parametrize(("name", "dim"), [("random-cnn", 160), ("pixels-8", 192)])
def test_made_anew_it_is_the_same_network(name, dim):
    pixels = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    torch.manual_seed(1)
    one = feature_network(name)
    torch.manual_seed(2)
    two = feature_network(name)
    assert one.sha256 == two.sha256 and len(one.sha256) == 64
    assert one(pixels).shape == (5, dim) == (5, one.dim)
    assert torch.equal(one(pixels), two(pixels))
    assert not any(p.requires_grad for p in one.parameters())


def test_random_weights_are_those_of_the_recorded_numbers():
    """Another generator of random numbers would make other numbers under the same name."""
    assert feature_network("random-cnn").sha256.startswith("0ad85365d0af")


def test_pixels_are_means_of_blocks():
    pixels = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    pixels[:, 1, :, 16:] = 255
    seen = feature_network("pixels-8")(pixels).view(3, 8, 8)
    assert seen[0].abs().max() == 0 and seen[1, :, :3].max() < 0.01 and seen[1, :, 5:].min() > 0.99
