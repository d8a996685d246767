"""The flow decoder on a U-Net: how latents enter, what it refuses, sampling."""

import pytest
import torch
from torch import nn

from vistok.config import ConfigError, validate
from vistok.core.errors import InputError
from vistok.core.records import Noisy
from vistok.core.shapes import Shape
from vistok.decoders.flow import FlowSamplingConfig
from vistok.decoders.flow_unet import FlowUNet, FlowUNetConfig
from vistok.layers.conv import ConvConfig, ConvNorm
from vistok.layers.tiles import DeviationNorm
from vistok.layers.unet import UNet
from vistok.tokenizer import Tokenizer, TokenizerConfig

SHAPE = Shape(3, (8, 8))


def made(**config) -> FlowUNet:
    torch.manual_seed(0)
    tiny = FlowUNetConfig.tiny().model_copy(update=config)
    return FlowUNet(tiny, SHAPE, ((2, 2),), 2).eval()


def test_the_way_up_reads_the_maps_of_the_way_down():
    config = ConvConfig(channels=8, channel_mult=(1, 2), blocks=1, mid_blocks=2, norm_groups=4)
    net = UNet(config, 5, 3, 32)
    # Kept on the way down: conv_in 8, level 0 8, halved 8, level 1 16.
    reads = [[block.conv1.in_channels for block in level.blocks] for level in net.up]
    assert reads == [[16 + 16, 16 + 8], [16 + 8, 8 + 8]]
    assert net(torch.randn(2, 5, 8, 8), torch.randn(2, 32)).shape == (2, 3, 8, 8)


def test_every_norm_of_maps_is_of_the_kind_that_the_config_names():
    config = ConvConfig(channels=8, channel_mult=(1, 2), blocks=1, norm_groups=4, norm="deviation")
    net = UNet(config, 5, 3, 32)
    plain = [name for name, module in net.named_modules() if type(module) is ConvNorm]
    assert isinstance(net.norm_out, DeviationNorm)
    assert all("attention" in name for name in plain)


@torch.no_grad()
def test_a_fresh_network_predicts_no_velocity_and_returns_the_noise():
    decoder, noise = made(start="zero"), torch.randn(2, 3, 8, 8)
    values = torch.randn(2, 4, 2)
    assert decoder(values, None, None, Noisy(noise, torch.rand(2))).prediction.abs().max() == 0
    assert torch.equal(decoder.sample(values, None, None, noise), noise)


@torch.no_grad()
def test_latents_are_enlarged_to_the_sides_of_the_image():
    values = torch.arange(8.0).view(1, 4, 2)  # cells of 2 numbers, row by row
    seen = made().embed(values, None, None).values
    assert seen.shape == (1, 2, 8, 8)
    assert seen[0, 0, ::4, ::4].tolist() == [[0, 2], [4, 6]]
    assert torch.equal(seen[0, 1, :4, :4], torch.ones(4, 4))


@torch.no_grad()
def test_the_velocity_depends_on_sample_latents_and_time():
    decoder = made()
    for parameter in decoder.parameters():
        nn.init.normal_(parameter, std=0.1)
    x, values = torch.randn(1, 3, 8, 8), torch.randn(1, 4, 2)
    at = lambda x, values, time: decoder(values, None, None, Noisy(x, torch.tensor([time])))
    plain = at(x, values, 0.5)
    for other in (at(x + 1, values, 0.5), at(x, values + 1, 0.5), at(x, values, 0.9)):
        assert not torch.allclose(plain.prediction, other.prediction)
    # The clean image that one step of the velocity leads to.
    torch.testing.assert_close(plain.estimate, x - 0.5 * plain.prediction)


def test_what_it_refuses():
    assert FlowUNet(FlowUNetConfig.tiny(), SHAPE, ((4,),), 2).grid == (2, 2)
    with pytest.raises(InputError, match="one grid of rows and columns"):
        FlowUNet(FlowUNetConfig.tiny(), SHAPE, ((6,),), 2)
    decoder, values = made(), torch.zeros(1, 4, 2)
    with pytest.raises(InputError, match="needs all values"):
        decoder.embed(values, torch.ones(1, 4, dtype=torch.bool), None)
    guided = FlowSamplingConfig(steps=1, guidance={"scale": 2.0})
    with pytest.raises(InputError, match=r"guidance\.scale=1"):
        decoder.sample(values, None, None, torch.zeros(1, 3, 8, 8), guided)
    with pytest.raises(ValueError, match="every level of a U-Net but the last"):
        FlowUNetConfig(conv=ConvConfig(channel_mult=(1, 2), space_levels=0))
    tree = {
        "image_size": 8,
        "encoder": {"kind": "cnn", "conv": ConvConfig.tiny().model_dump()},
        "quantizer": {"kind": "kl", "dim": 2},
        "decoder": {"kind": "flow_unet", "sampling": {"guidance": {"scale": 3.0}}},
    }
    with pytest.raises(ConfigError, match="has no unconditional prediction"):
        Tokenizer(validate(TokenizerConfig, tree))
