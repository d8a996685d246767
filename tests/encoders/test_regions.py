"""Regions: their cuts and complexity, tokens that are Gaussians, other counts, tiles."""

import math

import pytest
import torch

from vistok.config import validate
from vistok.core.errors import InputError
from vistok.layers.regions import complexity, edges, entropy, gaussians, halves, partition
from vistok.tokenizer import Tokenizer, TokenizerConfig


def made(**parts) -> Tokenizer:
    """A tiny tokenizer of 16 x 16 pixels, with weights that do something."""
    conv = {"channels": 8, "channel_mult": [1, 2], "blocks": 1, "norm_groups": 4,
            "norm": "deviation", "attention": True, "attention_levels": []}  # fmt: skip
    encoder = {"kind": "regions", "count": 6, "least": 2, "gaussians": True, "stem_width": 8,
               "norm_groups": 4, "cells": 3, "stem_blocks": 1,
               "transformer": {"width": 16, "depth": 2, "heads": 2}}  # fmt: skip
    tree = {
        "image_size": 16,
        "encoder": encoder | parts.pop("encoder", {}),
        "quantizer": {"kind": "none", "dim": 9},
        "decoder": {"kind": "splat", "features": None, "cnn": {"conv": conv}}
        | parts.pop("decoder", {}),
    }
    torch.manual_seed(0)
    tokenizer = Tokenizer(validate(TokenizerConfig, tree | parts))
    torch.nn.init.normal_(tokenizer.encoder.geometry.weight, std=0.1)
    return tokenizer.eval()


def images(count=2, side=16):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def test_an_entropy_by_hand():
    flat, half = torch.zeros(1, 64, 64, dtype=torch.float64), torch.zeros(1, 64, 64)
    half[:, :32] = 3.0
    found = entropy(torch.cat([flat, half.double()]))
    assert abs(float(found[0])) < 1e-7  # one bin: nothing to tell
    assert float(found[1]) == pytest.approx(1.0, abs=1e-6)  # two bins, equally full


def test_edges_of_a_ramp():
    ramp = (torch.arange(64) / 64).expand(1, 64, 64)
    found = edges(ramp)
    assert found[0, 5, 5] == 8 / 64 and found[0, 5, 0] == 4 / 64  # the border is repeated


def test_regions_tile_the_image_and_go_where_its_edges_are():
    grey = torch.zeros(1, 32, 32)
    grey[:, :16, :16] = torch.rand(16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    boxes = partition(grey, 10, least=2)[0]
    seen = torch.zeros(32, 32)
    for top, bottom, left, right in boxes.tolist():
        seen[top : bottom + 1, left : right + 1] += 1
    assert (seen == 1).all()
    inside = (boxes[:, 1] < 16) & (boxes[:, 3] < 16)
    assert int(inside.sum()) >= 7


def test_the_least_complex_half_decides_how_a_square_is_cut():
    """Texture left, nothing right: columns are cut, since the right half is worth nothing."""
    grey = torch.zeros(1, 16, 16)
    grey[:, :, :8] = torch.rand(16, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert partition(grey, 2)[0].tolist() == [[0, 15, 0, 7], [0, 15, 8, 15]]
    assert partition(grey.mT, 2)[0].tolist() == [[0, 7, 0, 15], [8, 15, 0, 15]]
    # A tie goes to rows.
    assert partition(torch.zeros(1, 16, 16), 2)[0].tolist() == [[0, 7, 0, 15], [8, 15, 0, 15]]


def test_power_zero_is_the_number_of_pixels():
    boxes = torch.tensor([[[0, 7, 0, 15], [2, 3, 4, 4]]])
    assert complexity(images(1)[:, 0], boxes, 0.0).tolist() == [[128.0, 2.0]]


def test_how_many_regions_there_can_be():
    assert halves(256, 256, 8) == (1024, 8) and halves(32, 32, 8) == (16, 8)
    assert halves(12, 12, 1)[1] == 1
    for count, least in ((16, 8), (64, 4)):
        boxes = partition(images(1, 32)[:, 0], count, least)
        assert boxes.shape == (1, count, 4)


def test_a_gaussian_lies_in_the_middle_of_its_region():
    found, box = gaussians(torch.tensor([[[0, 7, 8, 15]]]), 16, 16)
    middle = [(11.5 / 15 - 0.5) * 2, (3.5 / 15 - 0.5) * 2]
    expected = [7 / 16 * 2 / 3, 7 / 16 * 2 / 3, 0.0, *middle]
    assert found[0, 0].tolist() == pytest.approx(expected)
    assert box[0, 0].tolist() == pytest.approx([8 / 15 * 2 - 1, -1, 1, 7 / 15 * 2 - 1])


def test_tokens_begin_at_their_gaussians():
    tokenizer, pixels = made(), images()
    torch.nn.init.zeros_(tokenizer.encoder.geometry.weight)
    values = tokenizer.latents(pixels).values
    start, _ = tokenizer.encoder.regions(tokenizer.input_space(pixels), 6)
    torch.testing.assert_close(values[..., :5], start, atol=1e-6, rtol=1e-6)


def test_other_numbers_of_tokens():
    tokenizer, pixels = made(), images()
    for count in (3, 6, 20):
        tokens = tokenizer.encode(pixels, length=count)
        assert tokens.spec.blocks == ((count,),) and tokens.values.shape == (2, count, 9)
        assert tokenizer.decode(tokens).shape == pixels.shape
    assert torch.equal(tokenizer.encode(pixels, 6).values, tokenizer.encode(pixels).values)


@pytest.mark.parametrize(
    ("length", "said"),
    [
        (100, "100 regions of 16x16 pixels; expected at most 64"),
        (0, "0 tokens of 1 tiles; expected a multiple of 1"),
        ([3, 4], r"length=\[3, 4\]: this tokenizer makes one number of tokens"),
    ],
)
def test_numbers_that_cannot_be(length, said):
    with pytest.raises(InputError, match=said) as error:
        made().encode(images(), length)
    assert "\n" not in str(error.value)


def test_larger_images_in_tiles():
    """Tiles are encoded alone; their Gaussians are summed to one map."""
    small, pixels = made(), images(2, 32)
    large = small.tiled(2)
    tokens = large.encode(pixels)
    assert tokens.values.shape == (2, 24, 9)
    corner = small.encode(pixels[:, :, :16, 16:])
    torch.testing.assert_close(tokens.values[:, 6:12], corner.values, atol=1e-5, rtol=1e-5)
    assert large.decode(tokens).shape == pixels.shape
    each = torch.cat([large.decode(tokens[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(large.decode(tokens), each, atol=1e-4, rtol=1e-4)
    with pytest.raises(InputError, match="7 tokens of 4 tiles; expected a multiple of 4"):
        large.encode(pixels, 7)


def test_tiles_that_are_not_merged_are_decoded_alone():
    small, pixels = made(decoder={"merge": False}), images(1, 32)
    large = small.tiled(2)
    decoded = large.decode(large.encode(pixels))
    alone = small.decode(small.encode(pixels[:, :, 16:, :16]))
    torch.testing.assert_close(decoded[:, :, 16:, :16], alone, atol=1e-5, rtol=1e-5)


def test_what_it_cannot_take_is_one_line():
    for changes, said in (
        ({"encoder": {"count": 65}}, "65 regions of 16x16 pixels; expected at most 64"),
        ({"encoder": {"least": 1, "count": 2}, "image_size": 12}, "regions of one pixel"),
        ({"quantizer": {"kind": "none", "dim": 5}}, "encoder.gaussians=true: tokens of 5 numbers"),
        ({"frames": 2}, "images of 3 colors"),
        (
            {"encoder": {"tiles": 3}, "decoder": {"tiles": 3}},
            "not a multiple of encoder.tiles=3",
        ),
        ({"encoder": {"tiles": 2}}, "encoder.tiles=2 with decoder.tiles=1: .* the same number"),
        ({"encoder": {"gaussians": False}}, "set encoder.gaussians=true, or give decoder.features"),
    ):
        with pytest.raises(ValueError, match=said) as error:
            made(**changes)
        assert "\n" not in str(error.value)


def test_codes_of_regions_keep_their_number():
    tokenizer = made(
        encoder={"gaussians": True},
        quantizer={"kind": "fsq", "levels": [5] * 9},
        decoder={"features": 4},
    )
    assert not tokenizer.any_count
    with pytest.raises(ValueError, match="decodes only whole sequences"):
        tokenizer.encode(images(), 3)
    assert math.prod(tokenizer.spec().vocab) == 5**9
