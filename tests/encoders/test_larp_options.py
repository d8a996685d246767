"""LARP's options of the ViT parts on hand-made numbers: tables, fixed tokens, norms, zero start."""

import math

import pytest
import torch

from vistok.config.registry import build
from vistok.core.shapes import Shape
from vistok.decoders.vit import ViTDecoderConfig
from vistok.encoders.vit import ViTEncoderConfig
from vistok.layers.latent_norm import make_latent_norm
from vistok.layers.positions import PositionTable, sincos_sum
from vistok.layers.transformer import Transformer, TransformerConfig

CLIP = Shape(3, (4, 8, 8))


def encoder(**latents):
    config = ViTEncoderConfig.tiny().model_dump()
    config["patches"]["frames"] = 2
    config["latents"] |= latents
    return build(ViTEncoderConfig.model_validate(config), CLIP, 6)


def test_columns_come_before_rows_and_frames_are_added():
    table = sincos_sum((2, 3, 5), 8).view(2, 3, 5, 8)
    column, row = table[0, 0, 4], table[0, 2, 0]
    slow = 0.01  # 10000 ** -(1/2)
    here = [math.sin(4), math.sin(4 * slow), math.cos(4), math.cos(4 * slow)]
    frame = [0.0] * 4 + [1.0] * 4  # of frame 0
    torch.testing.assert_close(column, torch.tensor([*here, 0, 0, 1, 1]) + torch.tensor(frame))
    below = [math.sin(2), math.sin(2 * slow), math.cos(2), math.cos(2 * slow)]
    torch.testing.assert_close(row, torch.tensor([0, 0, 1, 1, *below]) + torch.tensor(frame))
    waves = 10000.0 ** (-torch.arange(4) / 4)
    moved = table[1, 1, 1] - table[0, 1, 1]
    torch.testing.assert_close(moved, torch.cat([waves.sin(), waves.cos() - 1]))
    with pytest.raises(ValueError, match="positions=sincos_sum with width=6"):
        sincos_sum((2, 2), 6)


def test_learned_tables_of_axes_add_up():
    table = PositionTable("learned_sum", (2, 3, 5), 8, lead=1)
    assert [tuple(rows.shape) for rows in table.axes] == [(2, 8), (3, 8), (5, 8)]
    rows = table(torch.zeros(1, 31, 8))[0]
    assert rows[0].abs().sum() == 0
    expected = table.axes[0][1] + table.axes[1][2] + table.axes[2][3]
    torch.testing.assert_close(rows[1 + 15 + 2 * 5 + 3], expected)


def test_latent_tokens_can_be_waves():
    fixed, learned = encoder(tokens="sincos"), encoder(tokens="learned_from_sincos")
    assert "latent_tokens" not in fixed.state_dict() and "latent_tokens" in learned.state_dict()
    torch.testing.assert_close(fixed.latent_tokens, learned.latent_tokens)
    torch.testing.assert_close(fixed.latent_tokens[3, 0], torch.tensor(math.sin(3)))


def test_levels_of_one_kind():
    x = torch.rand(1, 3, 4, 8, 8)
    for kind, rows in (("patches", 1), ("latents", 1), (True, 2)):
        part = encoder(levels=kind).eval()
        assert part.levels.shape[0] == rows
        before = part(x).values
        part.levels.data.zero_()
        assert not torch.allclose(part(x).values, before)


def test_norms_of_latents():
    torch.manual_seed(0)
    x = torch.randn(5, 4, 3) * 2 + 1
    over = {"layernorm_affine": (2,), "layernorm_all": (1, 2), "batchnorm": (0, 1)}
    for kind, axes in {**over, "batchnorm_each": (0,)}.items():
        norm = make_latent_norm(kind, 4, 3)
        mean, var = x.mean(axes, keepdim=True), x.var(axes, correction=0, keepdim=True)
        torch.testing.assert_close(norm(x), (x - mean) / (var + 1e-5).sqrt())
        shapes = {"layernorm_all": (4, 3), "batchnorm_each": (12,)}
        assert norm.norm.weight.shape == shapes.get(kind, (3,))
    assert not list(make_latent_norm("layernorm", 4, 3).parameters())


def test_the_last_norm_can_be_left_out_or_have_its_own_epsilon():
    plain = Transformer(TransformerConfig(width=8, depth=1, heads=1, norm_out=False))
    assert "norm.weight" not in plain.state_dict()
    own = Transformer(
        TransformerConfig(width=8, depth=1, heads=1, norm_eps=1e-5, norm_out_eps=1e-6)
    )
    assert (own.norm.eps, own.blocks[0].norm_mlp.eps) == (1e-6, 1e-5)


def test_a_decoder_without_mask_token_starts_from_zeros():
    config = ViTDecoderConfig.tiny().model_dump() | {
        "mask_token": False, "value_positions": "sincos", "levels": "values", "missing": "refuse",
        "head": {"kind": "pixels", "gain": 0.0}, "token_std": "constant",
    }  # fmt: skip
    part = build(ViTDecoderConfig.model_validate(config), Shape(3, (8, 8)), ((4,),), 6)
    assert "mask_token" not in part.state_dict() and "latent_positions" not in part.state_dict()
    values = torch.randn(2, 4, 6)
    assert part(values).prediction.abs().sum() == 0  # and still the head learns
    part(values).prediction.sum().backward()
    assert part.head.proj.weight.grad.abs().sum() > 0
    config["patches"]["positions"] = "none"
    with pytest.raises(ValueError, match="mask_token=false leaves the grid to its positions"):
        ViTDecoderConfig.model_validate(config)


def test_options_without_their_tokens_are_refused():
    with pytest.raises(ValueError, match="tokens=sincos needs latent tokens"):
        encoder(count=None, tokens="sincos")
    config = ViTDecoderConfig.tiny().model_dump() | {"value_rows": "onto"}
    with pytest.raises(ValueError, match="value_positions=shared or sincos"):
        ViTDecoderConfig.model_validate(config | {"value_positions": "sincos"})
