"""Patches of images and clips, and back."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from vistok.core.shapes import Shape
from vistok.layers.patchify import PatchEmbed, PatchesConfig, Unpatchify, resample_kernel

IMAGE, CLIP = Shape(3, (4, 6)), Shape(3, (6, 4, 6))


@pytest.mark.parametrize(("shape", "frames"), [(IMAGE, 1), (CLIP, 1), (CLIP, 3)], ids=str)
def test_patches_are_row_major_and_come_back(shape, frames):
    # An embedding that copies the patch, (frame, row, column, color), and a head that copies back.
    patches = PatchesConfig(size=2, frames=frames)
    width = frames * 12
    embed = PatchEmbed(patches, shape, width)
    with torch.no_grad():
        embed.proj.weight.zero_()
        embed.proj.bias.zero_()
        places = itertools.product(range(frames), range(2), range(2), range(3))
        for channel, (frame, row, column, color) in enumerate(places):
            window = embed.proj.weight[channel, color]
            (window[frame] if shape.is_clip else window)[row, column] = 1
    head = Unpatchify(patches, shape, width)
    with torch.no_grad():
        head.proj.weight.copy_(torch.eye(width))
        head.proj.bias.zero_()
    x = torch.rand(2, 3, *shape.sides)
    rows = embed(x)
    grid = patches.grid(shape)
    assert grid[-2:] == (2, 3) and rows.shape == (
        2,
        (6 // frames if shape.is_clip else 1) * 6,
        width,
    )
    first = x[0, :, 0] if shape.is_clip else x[0]
    assert torch.allclose(rows[0, 1, :3], first[:, 0, 2])  # second patch, its first pixel
    assert torch.allclose(head(rows), x, atol=1e-6)


def test_overlapping_patches_keep_the_grid_and_see_neighbours():
    embed = PatchEmbed(PatchesConfig(size=4), Shape(3, (8, 8)), 8, overlap=2)
    image = torch.rand(1, 3, 8, 8)
    changed = image.clone()
    changed[:, :, 0, 5] += 1  # inside patch (0, 1), two pixels from patch (0, 0)
    difference = (embed(image) - embed(changed)).abs().sum(-1)[0]
    assert embed(image).shape == (1, 4, 8)
    assert (difference > 0).tolist() == [True, True, False, False]


def test_smoothing_starts_as_the_identity_of_a_zero_layer():
    patches, shape = PatchesConfig(size=2), Shape(3, (4, 4))
    head = Unpatchify(patches, shape, 8, smooth=4)
    torch.nn.init.zeros_(head.smooth[-1].weight)
    torch.nn.init.zeros_(head.smooth[-1].bias)
    plain = Unpatchify(patches, shape, 8)
    plain.proj.load_state_dict(head.proj.state_dict())
    x = torch.randn(1, 4, 8)
    assert torch.equal(head(x), plain(x))
    assert head.last_layer is head.smooth[-1].weight and plain.last_layer is plain.proj.weight


def test_sides_that_do_not_divide(fails):
    patches = PatchesConfig(size=4)
    assert patches.grid(Shape(3, (8, 12))) == (2, 3)
    assert PatchesConfig(size=4, frames=2).grid(Shape(3, (6, 8, 12))) == (3, 2, 3)
    with fails(ValueError, r"sides=\(8, 10\).*patches.size=4"):
        patches.grid(Shape(3, (8, 10)))
    with fails(ValueError, r"sides=\(5, 8, 8\).*patches.size=4, patches.frames=2"):
        PatchesConfig(size=4, frames=2).grid(Shape(3, (5, 8, 8)))
    with fails(ValueError, "patches.frames=2, but this tokenizer takes images", "tokenizer.frames"):
        PatchesConfig(size=4, frames=2).grid(Shape(3, (8, 8)))


def test_a_kernel_of_larger_patches_answers_resized_patches_alike():
    kernel, patches = torch.randn(5, 3, 14, 14), torch.randn(2, 3, 14, 14)
    larger = F.interpolate(patches, (16, 16), mode="bicubic", antialias=True)
    found = F.conv2d(larger, resample_kernel(kernel, (16, 16)))
    assert torch.allclose(found, F.conv2d(patches, kernel), atol=1e-4)
    assert resample_kernel(kernel, (14, 14)) is kernel


def test_a_kernel_of_smaller_patches_is_the_least_squares_one():
    kernel = torch.randn(1, 1, 6, 6)
    smaller = resample_kernel(kernel, (4, 4)).flatten()
    basis = torch.eye(36).view(36, 1, 6, 6)
    resized = F.interpolate(basis, (4, 4), mode="bicubic", antialias=True).flatten(1)  # [36, 16]
    expected = torch.linalg.lstsq(resized, kernel.flatten()[:, None]).solution[:, 0]
    assert torch.allclose(smaller, expected, atol=1e-4)
