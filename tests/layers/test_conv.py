"""Convolution blocks on hand-made numbers."""

import pytest
import torch
import torch.nn.functional as F

from vistok.config import ConfigError, validate
from vistok.config.registry import build
from vistok.core.shapes import Shape
from vistok.decoders.cnn import CNNDecoderConfig
from vistok.encoders.cnn import CNNEncoderConfig
from vistok.layers.conv import (
    AdaptiveNorm,
    AttentionBlock,
    Blur,
    ConvConfig,
    ConvNorm,
    DepthToSpace,
    Downsample,
    Level,
    ResBlock,
    Upsample,
    middle,
)


def small(**options) -> ConvConfig:
    return ConvConfig(**{"channels": 4, "channel_mult": (1, 2), "norm_groups": 2} | options)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shortcut", ["input", "output"])
def test_a_block_adds_what_its_shortcut_says(shortcut, bias):
    block = ResBlock(small(shortcut=shortcut, bias=bias), 4, 8)
    x = torch.randn(2, 4, 5, 6)
    with torch.no_grad():
        y = block.conv1(F.silu(F.group_norm(x, 2, block.norm1.weight, block.norm1.bias, 1e-6)))
        y = block.conv2(F.silu(F.group_norm(y, 2, block.norm2.weight, block.norm2.bias, 1e-6)))
        added = F.conv2d(
            x if shortcut == "input" else y, block.shortcut.weight, block.shortcut.bias
        )
        torch.testing.assert_close(block(x), y + added)
    assert block.shortcut.weight.shape[:2] == (8, 4 if shortcut == "input" else 8)
    assert all((conv.bias is not None) == bias for conv in (block.conv1, block.conv2))


def test_a_block_of_one_width_adds_its_input():
    block = ResBlock(small(shortcut="output"), 4, 4)
    x = torch.randn(1, 4, 3, 3)
    torch.nn.init.zeros_(block.conv2.weight)
    torch.nn.init.zeros_(block.conv2.bias)
    assert block.shortcut is None and torch.equal(block(x), x)


def test_the_norm_does_not_see_the_layout():
    norm = ConvNorm(small(), 4)
    x = 3 + torch.randn(2, 4, 16, 16)
    assert torch.equal(norm(x.contiguous(memory_format=torch.channels_last)), norm(x))


def test_upsampling_repeats_then_convolves():
    layer, x = Upsample(2), torch.randn(1, 2, 3, 2)
    repeated = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(layer(x), layer.conv(repeated))


def test_blur_by_hand():
    blur = Blur(4)
    line = torch.tensor([1.0, 3.0, 3.0, 1.0])
    assert torch.equal(blur.kernel[0, 0], line[:, None] * line / 64)
    x = torch.zeros(1, 2, 6, 6)
    x[0, 0, 2, 2] = 64.0  # one zero goes around: window 1 of each axis starts at position 1
    y = blur(x)
    assert y.shape == (1, 2, 3, 3) and not y[0, 1].any()
    assert y[0, 0].tolist() == [[1, 3, 0], [3, 9, 0], [0, 0, 0]]
    # An odd side of 5 becomes 3; three zeros are needed, one in front and two behind.
    x = torch.zeros(1, 1, 1, 5)
    x[..., 4] = 64.0
    padded = F.pad(x, (1, 2, 1, 2))
    assert blur(x).shape == (1, 1, 1, 3)
    torch.testing.assert_close(blur(x), F.conv2d(padded, blur.kernel, stride=2))
    assert not blur.state_dict()


def test_levels_and_what_does_not_fit(fails):
    config = ConvConfig()
    assert config.widths == (128, 128, 256, 256, 512) and config.grid(Shape(3, (256, 128))) == (
        16,
        8,
    )
    with fails(ValueError, r"image_size=\(40, 32\)", "multiple of 16", "5 levels"):
        config.grid(Shape(3, (40, 32)))
    with fails(ValueError, "channels=12", "norm_groups=32"):
        validate(ConvConfig, {"channels": 12})


def test_attention_is_that_of_all_positions_with_one_head():
    block, x = AttentionBlock(small(), 4), torch.randn(2, 4, 2, 3)
    rows = F.group_norm(x, 2, block.norm.weight, block.norm.bias, 1e-6).flatten(2).transpose(1, 2)
    weight, bias = block.attention.qkv.weight, block.attention.qkv.bias
    q, k, v = (rows @ w.T + b for w, b in zip(weight.chunk(3), bias.chunk(3), strict=True))
    seen = (q @ k.transpose(1, 2) * 4**-0.5).softmax(-1) @ v
    added = (seen @ block.attention.out.weight.T + block.attention.out.bias).transpose(1, 2)
    torch.testing.assert_close(block(x), x + added.view_as(x))


def test_attention_stands_where_the_original_has_it():
    config = small(attention=True, blocks=2, mid_blocks=3)
    level = Level(config, 4, 8, attend=True)
    assert [type(part) for part in level.attention] == [AttentionBlock] * 2
    assert not any(isinstance(m, AttentionBlock) for m in Level(config, 4, 8).modules())
    kinds = [ResBlock, AttentionBlock, ResBlock, AttentionBlock, ResBlock]
    assert [type(part) for part in middle(config)] == kinds
    assert [type(part) for part in middle(small(mid_blocks=2))] == [ResBlock, ResBlock]


def test_downsampling_pads_right_and_bottom():
    layer, x = Downsample(1), torch.zeros(1, 1, 4, 4)
    x[0, 0, 0, 0] = 1.0
    with torch.no_grad():
        layer.conv.weight.copy_(torch.arange(9.0).view(1, 1, 3, 3))
        layer.conv.bias.zero_()
    assert layer(x)[0, 0].tolist() == [[0, 0], [0, 0]]  # its corner meets weight 0
    assert layer(x.flip(2, 3))[0, 0].tolist() == [[0, 0], [0, 4]]  # rows 2, 3 and a zero


def test_depth_to_space_has_the_block_outside():
    layer, x = DepthToSpace(2), torch.zeros(1, 2, 1, 1)
    with torch.no_grad():
        layer.conv.bias.copy_(torch.arange(8.0))
    # Channels 0..7 are (row, column, C).
    assert layer(x)[0].tolist() == [[[0, 2], [4, 6]], [[1, 3], [5, 7]]]


def test_adaptive_norm_by_hand():
    norm = AdaptiveNorm(small(), 4, 2)
    x = torch.randn(1, 4, 3, 3)
    z = torch.tensor([[[[1.0, 3.0]], [[0.0, 0.0]]]])  # means 2, 0; unbiased variances 2, 0
    expected = F.group_norm(x, 2, eps=1e-6)
    scale = norm.scale(torch.tensor([[2.0 + 1e-6, 1e-6]]).sqrt())
    shift = norm.shift(torch.tensor([[2.0, 0.0]]))
    expected = scale[..., None, None] * expected + shift[..., None, None]
    torch.testing.assert_close(norm(x, z), expected)
    assert norm.norm.weight is None


def test_fewer_levels_than_all_but_one_change_the_sides():
    """The first of an encoder, the last of a decoder: at equal sides their widths differ."""
    config = small(channel_mult=(1, 2, 4), space_levels=1)
    assert config.grid(Shape(3, (8, 6))) == (4, 3)
    assert [config.halves(i) for i in range(3)] == [True, False, False]
    assert [config.doubles(i) for i in range(3)] == [False, False, True]
    every, usual = small(space_levels=2), small()
    assert every.grid(Shape(3, (8, 8))) == (2, 2) and usual.grid(Shape(3, (8, 8))) == (4, 4)
    assert every.halves(1) and every.doubles(0) and not usual.halves(1) and not usual.doubles(0)
    shape = Shape(3, (8, 4))
    encoder = build(CNNEncoderConfig(conv=config, downsample="conv"), shape, 5)
    assert [level.way is None for level in encoder.levels] == [False, True, True]
    assert encoder.levels[0].way.conv.in_channels == 4
    latents = encoder(torch.randn(2, 3, 8, 4))
    decoder = build(CNNDecoderConfig(conv=config), shape, latents.grids, 5)
    assert [level.way is None for level in decoder.levels] == [True, True, False]
    assert decoder.levels[2].way.conv.in_channels == 16
    assert decoder(latents.values).estimate.shape == (2, 3, 8, 4)


def test_levels_that_there_are_not_are_refused(fails):
    with fails(ConfigError, "space_levels=3: channel_mult has 2 levels; expected 0..2"):
        validate(ConvConfig, {"channels": 32, "channel_mult": [1, 2], "space_levels": 3})
    with fails(
        ValueError, r"image_size=\(6, 6\) is not a multiple of 4, as the 2 space_levels want"
    ):
        small(space_levels=2).grid(Shape(3, (6, 6)))
