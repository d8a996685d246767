"""Resizing: averages, antialiasing, refusals."""

from __future__ import annotations

import pytest
import torch

from vistok.layers.resize import resize


def test_same_size_is_the_same_tensor():
    images = torch.rand(2, 3, 8, 6)
    assert resize(images, (8, 6)) is images


def test_halving_by_area_is_the_mean_of_four():
    images = torch.arange(16.0).view(1, 1, 4, 4)
    truth = torch.tensor([[2.5, 4.5], [10.5, 12.5]])
    assert torch.equal(resize(images, 2, "area")[0, 0], truth)
    assert resize(images, (2, 4)).shape == (1, 1, 2, 4)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_antialias_removes_what_cannot_be_shown(mode):
    stripes = (torch.arange(64) % 2).float().expand(1, 1, 64, 64)
    assert (resize(stripes, 10, mode) - 0.5).abs().max() < 0.1
    assert (resize(stripes, 10, mode, antialias=False) - 0.5).abs().max() > 0.2


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic", "area"])
def test_flat_stays_flat(mode):
    flat = torch.full((1, 3, 20, 30), 0.3)
    torch.testing.assert_close(resize(flat, (7, 45), mode), torch.full((1, 3, 7, 45), 0.3))


def test_gradients_flow():
    images = torch.rand(1, 3, 8, 8, requires_grad=True)
    resize(images, 4).sum().backward()
    assert (images.grad > 0).all()


def test_refusals_are_one_line():
    with pytest.raises(ValueError, match="expected float"):
        resize(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), 2)
    with pytest.raises(ValueError, match="expected one of nearest"):
        resize(torch.zeros(1, 3, 4, 4), 2, "lanczos")
    with pytest.raises(ValueError, match="sides of 1 or more"):
        resize(torch.zeros(1, 3, 4, 4), 0)
