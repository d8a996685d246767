"""Frequencies of patches: exact inverse, low frequencies first, missing ones add nothing."""

import pytest
import torch
from torch import nn

import vistok.heads  # noqa: F401 (registers the head of pixels)
from vistok.config.errors import UserError
from vistok.core.shapes import Shape
from vistok.decoders.vit import ViTDecoder, ViTDecoderConfig
from vistok.encoders.vit import LatentsConfig, ViTEncoder, ViTEncoderConfig
from vistok.layers.patchify import PatchesConfig
from vistok.layers.spectrum import Analysis, Synthesis, cosines
from vistok.layers.transformer import TransformerConfig


def _plain(part):
    """A part whose learned layers do nothing."""
    with torch.no_grad():
        part.rows.weight.copy_(torch.eye(len(part.rows.weight)))
        nn.init.zeros_(part.rows.bias)
        part.slots.copy_(torch.eye(part.slots.shape[1]).expand_as(part.slots))
    return part


def test_the_cosine_transform_by_hand():
    matrix, scale = cosines((2, 2))
    half = 0.5
    assert torch.allclose(matrix[0], torch.full((4,), half))
    assert torch.allclose(matrix[1].abs(), torch.full((4,), half))
    assert torch.allclose(matrix[3], torch.tensor([half, -half, -half, half]))
    assert torch.allclose(scale, torch.tensor([1.0, 2.0, 2.0, 1 + 2**0.5]) / 8)


@pytest.mark.parametrize("grid", [(3, 5), (16, 16), (2, 3, 4)])
def test_synthesis_inverts_analysis(grid):
    analysis, synthesis = _plain(Analysis(grid, 6, 6, 6)), _plain(Synthesis(grid, 6, 6, 6))
    rows = torch.randn(2, torch.Size(grid).numel(), 6)
    assert torch.allclose(synthesis(analysis(rows)), rows, atol=1e-4)
    matrix, _ = cosines(grid)
    assert torch.allclose(matrix @ matrix.T, torch.eye(len(matrix)), atol=1e-5)


def test_a_prefix_is_a_smoother_grid():
    analysis, synthesis = _plain(Analysis((4, 4), 3, 3, 3)), _plain(Synthesis((4, 4), 3, 3, 3))
    rows = torch.randn(2, 16, 3)
    values = analysis(rows)
    errors = []
    for kept in (1, 4, 10, 16):
        made = synthesis(values, (torch.arange(16) < kept).expand(2, -1))
        errors.append((made - rows).square().mean().item())
        if kept == 1:
            assert torch.allclose(made, rows.mean(1, keepdim=True).expand_as(made), atol=1e-5)
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-8


def _decoder(**options):
    options = {"value_rows": "onto", "spectrum": 8, "missing": "drop", **options}
    patches, inner = PatchesConfig(size=4), TransformerConfig.tiny()
    config = ViTDecoderConfig(patches=patches, transformer=inner, **options)
    return ViTDecoder(config, Shape(3, (16, 16)), ((16,),), 4)


@pytest.mark.parametrize("spectrum", [None, 8])
def test_what_is_dropped_is_not_read(spectrum):
    torch.manual_seed(0)
    decoder = _decoder(spectrum=spectrum)
    nn.init.normal_(decoder.head.proj.weight)
    values, present = torch.randn(2, 16, 4), (torch.arange(16) < 5).expand(2, -1)
    other = torch.where(present[..., None], values, torch.randn(2, 16, 4))
    assert torch.equal(decoder(values, present).prediction, decoder(other, present).prediction)
    assert not torch.equal(decoder(values).prediction, decoder(other).prediction)
    assert decoder.prefix == "token"


def test_the_encoder_gives_a_list():
    config = ViTEncoderConfig(
        patches={"size": 4},
        latents=LatentsConfig(count=None, spectrum=8),
        transformer=TransformerConfig.tiny(),
    )
    encoder = ViTEncoder(config, Shape(3, (16, 16)), 4)
    assert encoder.grids == ((16,),)
    assert encoder(torch.rand(2, 3, 16, 16)).values.shape == (2, 16, 4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"value_rows": "behind"}, "give value_rows=onto"),
        ({"missing": "mask_token"}, "give missing=drop"),
        ({"levels": True}, "levels, and value_positions"),
        ({"patches": PatchesConfig(size=8)}, "one value for each of 4 patches"),
    ],
)
def test_what_does_not_fit_is_one_line(options, words):
    with pytest.raises((UserError, ValueError), match=words):
        patches = options.pop("patches", PatchesConfig(size=4))
        options = {"value_rows": "onto", "spectrum": 8, "missing": "drop", **options}
        config = ViTDecoderConfig(patches=patches, transformer=TransformerConfig.tiny(), **options)
        ViTDecoder(config, Shape(3, (16, 16)), ((16,),), 4)


def test_latents_that_are_frequencies_have_no_count():
    with pytest.raises((UserError, ValueError), match="give count=null"):
        LatentsConfig(count=16, spectrum=8)
