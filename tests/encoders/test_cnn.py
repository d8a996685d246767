"""CNN encoder and decoder: shapes, order, scaling, sizes, refusals."""

import pytest
import torch

from vistok.config import validate
from vistok.core.shapes import Shape
from vistok.decoders.cnn import CNNDecoder, CNNDecoderConfig
from vistok.encoders.cnn import CNNEncoder, CNNEncoderConfig
from vistok.tokenizer import Tokenizer, TokenizerConfig

CONV = {"channels": 4, "channel_mult": (1, 2, 2), "blocks": 1, "mid_blocks": 1, "norm_groups": 2}
SHAPE = Shape(3, (8, 16))


def encoder(**options) -> CNNEncoder:
    torch.manual_seed(0)
    return CNNEncoder(CNNEncoderConfig(**{"conv": CONV} | options), SHAPE, 3)


def decoder(values: int = 8, **options) -> CNNDecoder:
    torch.manual_seed(0)
    return CNNDecoder(CNNDecoderConfig(**{"conv": CONV} | options), SHAPE, ((values,),), 3)


def test_positions_are_rows_of_the_image():
    net = encoder(kernel_out=1)
    x = torch.rand(2, 3, 8, 16)
    latents = net(x)
    assert latents.grids == net.grids == ((2, 4),) and latents.values.shape == (2, 8, 3)
    assert latents.features["grid"].shape == (2, 8, 8)
    # Mirrored weights see a mirrored image as they saw the image: columns change places.
    flipped = encoder(kernel_out=1)
    with torch.no_grad():
        for parameter in flipped.parameters():
            if parameter.ndim == 4:
                parameter.copy_(parameter.flip(-1))
        mirrored = flipped(x.flip(-1)).values.view(2, 2, 4, 3).flip(2).flatten(1, 2)
    torch.testing.assert_close(mirrored, latents.values, atol=1e-5, rtol=1e-4)


def test_centered_strides_see_as_much_left_as_right():
    """Their first window begins one pixel outside; the other's ends one outside."""
    for downsample, wanted in (("conv", (0, 2)), ("conv_centered", (0, 1))):
        way = encoder(downsample=downsample).levels[0].way
        x = torch.randn(1, 4, 4, 8, requires_grad=True)
        (y := way(x))[0, :, 0, 0].sum().backward()
        rows, columns = (x.grad.abs().sum((0, 1, axis)).nonzero() for axis in (3, 2))
        assert y.shape == (1, 4, 2, 4)
        assert (rows.min(), rows.max()) == (columns.min(), columns.max()) == wanted


def test_other_channels_and_clips(fails):
    """A space says how many channels there are; a clip is refused in one line."""
    shape = Shape(5, (8, 16))
    net = CNNEncoder(CNNEncoderConfig(conv=CONV), shape, 3)
    back = CNNDecoder(CNNDecoderConfig(conv=CONV), shape, net.grids, 3)
    x = torch.rand(2, 5, 8, 16)
    assert back(net(x).values).estimate.shape == x.shape
    with fails(ValueError, "not clips of 4 frames", "kind: vit"):
        CNNEncoder(CNNEncoderConfig(conv=CONV), Shape(3, (4, 8, 16)), 3)


def test_what_a_decoder_refuses(fails):
    with fails(ValueError, r"grid of \(2, 4\)", "there are 5 values", "channel_mult"):
        decoder(values=5)
    net = decoder()
    assert net.prefix == "none" and net.last_layer is net.conv_out.weight
    with fails(ValueError, "every latent"):
        net(torch.randn(1, 8, 3), torch.ones(1, 8, dtype=torch.bool))


def test_layout_of_the_input_changes_nothing():
    """A grid that comes from rows of latents lies channels-last; so may images."""
    x = torch.rand(2, 3, 8, 16)
    net = encoder()
    last = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(net(last).values, net(x).values, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("part", "millions"), [("encoder", 23.8), ("decoder", 30.5)])
def test_the_released_network_has_its_size(part, millions):
    conv = {"shortcut": "output", "bias": False}
    tree = {
        "encoder": {"kind": "cnn", "conv": conv, "bias_in": False, "kernel_out": 1},
        "quantizer": {"kind": "vq", "codebook_size": 1024, "dim": 256, "l2_norm": False},
        "decoder": {"kind": "cnn", "conv": conv},
    }
    with torch.device("meta"):
        tokenizer = Tokenizer(validate(TokenizerConfig, tree))
    assert tokenizer.spec().blocks == ((16, 16),)
    assert tokenizer.part_parameters()[part] / 1e6 == pytest.approx(millions, rel=0.005)


@pytest.mark.parametrize("upsample", ["conv", "nearest", "depth_to_space"])
@pytest.mark.parametrize("adaptive", [False, True])
def test_every_way_up_and_down(upsample, adaptive):
    conv = CONV | {"attention": adaptive, "blocks": 2}
    down = "average" if upsample == "nearest" else "conv"
    net = encoder(conv=conv, downsample=down, z_channels=6)
    back = decoder(conv=conv, upsample=upsample, adaptive_norm=adaptive, z_channels=6)
    x = torch.rand(2, 3, 8, 16)
    latents = net(x)
    assert latents.values.shape == (2, 8, 3) and latents.features["z"].shape == (2, 8, 6)
    torch.testing.assert_close(net.proj(latents.features["z"]), latents.values)
    y = back(latents.values).estimate
    assert y.shape == x.shape
    y.square().mean().backward()
    for name, parameter in [*net.named_parameters(), *back.named_parameters()]:
        assert parameter.grad is not None and parameter.grad.any(), name


def test_a_norm_needs_a_spread(fails):
    conv = CONV | {"channel_mult": (1,) * 4}
    with fails(ValueError, "adaptive_norm=true", r"a map of \(1, 1\) has one"):
        CNNDecoder(CNNDecoderConfig(conv=conv, adaptive_norm=True), Shape(3, (8, 8)), ((1,),), 3)
