"""Treatments of pixels: against Pillow in every bit, and against torch's own filters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from vistok.frozen.pixels import DESCRIBED, PREPARE, center_square, pil_bicubic

SIDES = [(32, 32), (256, 256), (224, 224), (61, 200), (300, 97), (1, 5)]


def images(h: int, w: int) -> torch.Tensor:
    """Noise, and an image of black and white whose edges overshoot the range."""
    generator = torch.Generator().manual_seed(h * 1000 + w)
    pixels = torch.randint(0, 256, (2, 3, h, w), generator=generator, dtype=torch.uint8)
    pixels[1] = (pixels[1] > 127) * 255
    return pixels


def pillow(pixels: torch.Tensor, side: int) -> torch.Tensor:
    resized = [
        np.array(Image.fromarray(one.permute(1, 2, 0).numpy()).resize((side, side), Image.BICUBIC))
        for one in pixels
    ]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("side", [224, 75])
def test_pillow_in_every_bit(sides, side):
    pixels = images(*sides)
    assert torch.equal(pil_bicubic(pixels, (side, side)), pillow(pixels, side))
    seen = PREPARE["pil"](pixels, side)
    assert seen.dtype == torch.float32 and torch.equal(seen, pillow(pixels, side).float() / 255)


def test_the_square_is_pillows_crop():
    pixels = images(61, 200)
    crop = Image.fromarray(pixels[0].permute(1, 2, 0).numpy()).crop((69, 0, 130, 61))
    assert torch.equal(center_square(pixels)[0], torch.from_numpy(np.array(crop)).permute(2, 0, 1))
    assert center_square(pixels.mT).shape == (2, 3, 61, 61)
    square = PREPARE["pil_square"](pixels, 336)
    assert torch.equal(square, pillow(pixels[..., 69:130], 336).float() / 255)


@pytest.mark.parametrize("name", ["antialiased", "plain"])
def test_torchs_filters_are_not_clamped(name):
    pixels = images(100, 80)
    antialias = name == "antialiased"
    for side in (64, 120):
        wanted = F.interpolate(
            pixels.float() / 255, size=(side, side), mode="bicubic", antialias=antialias
        )
        seen = PREPARE[name](pixels, side)
        assert torch.equal(seen, wanted) and seen.min() < 0 and seen.max() > 1
    same = images(64, 64)
    assert torch.equal(PREPARE[name](same, 64), same.float() / 255)


def test_the_treatments_differ_where_images_shrink():
    pixels = images(256, 256)
    seen = {name: make(pixels, 224) for name, make in PREPARE.items()}
    assert torch.equal(seen["pil"], seen["pil_square"])  # a square already
    assert (seen["plain"] - seen["antialiased"]).abs().mean() > 0.02
    assert (seen["pil"] - seen["antialiased"]).abs().mean() > 0.01  # overshoots are cut
    smooth = (torch.arange(256) // 2 + 50).to(torch.uint8).expand(1, 3, 256, 256)
    gap = PREPARE["pil"](smooth, 224) - PREPARE["antialiased"](smooth, 224)
    assert 0 < gap.abs().max() <= 1.01 / 255  # one filter: Pillow rounds
    assert set(DESCRIBED) == set(PREPARE) and len(set(DESCRIBED.values())) == len(DESCRIBED)


def test_channels_stay_red_green_blue():
    pixels = torch.zeros(1, 3, 20, 30, dtype=torch.uint8)
    pixels[:, 0] = 255
    for make in PREPARE.values():
        seen = make(pixels, 16)
        torch.testing.assert_close(seen[0, 0], torch.ones(16, 16), rtol=0, atol=1e-6)
        torch.testing.assert_close(seen[0, 1:], torch.zeros(2, 16, 16), rtol=0, atol=1e-6)
