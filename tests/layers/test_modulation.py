"""Adaptive layer norm and time embeddings."""

import math

import pytest
import torch

from vistok.config import validate
from vistok.contracts.case import tiny_tree
from vistok.decoders.vit import ViTDecoderConfig
from vistok.layers.modulation import Modulation, TimeEmbedding, modulate
from vistok.layers.transformer import Transformer, TransformerConfig, init_weights
from vistok.tokenizer import Tokenizer, TokenizerConfig


def test_it_starts_as_nothing_and_is_a_scale_and_a_shift():
    layer = Modulation(4, 3, 2)
    x, condition = torch.randn(2, 5, 3), torch.randn(2, 4)
    shift, scale = layer(condition)
    assert shift.shape == scale.shape == (2, 1, 3)
    assert torch.equal(modulate(x, shift, scale), x)
    with torch.no_grad():
        layer.proj.bias.copy_(torch.tensor([1.0, 2, 3, 4, 5, 6]))
    shift, scale = layer(condition)
    assert shift[0, 0].tolist() == [1, 2, 3] and scale[1, 0].tolist() == [4, 5, 6]
    assert torch.allclose(modulate(x, shift, scale)[1, 2, 1], x[1, 2, 1] * 6 + 2)
    layer.reset()
    assert not layer(condition)[0].any()


def test_time_embedding_by_hand():
    layer = TimeEmbedding(4, channels=4, max_period=256.0, scale=1000.0)
    seen = []
    layer.up.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    assert layer(torch.tensor([0.0, 0.002])).shape == (2, 4)
    # Frequencies 1 and 256 ** -0.5 = 1 / 16, of 1000 t; cosines first.
    expected = [math.cos(2), math.cos(2 / 16), math.sin(2), math.sin(2 / 16)]
    assert torch.allclose(seen[0][1], torch.tensor(expected), atol=1e-5)
    assert seen[0][0].tolist() == [1, 1, 0, 0]


def test_a_modulated_transformer_starts_as_the_identity_and_obeys_its_vector():
    config = TransformerConfig(width=8, depth=2, heads=2, norm="none", modulation=3)
    model = Transformer(config)
    init_weights(model, config)
    x, vector = torch.randn(2, 5, 8), torch.randn(2, 3)
    assert torch.equal(model(x, vector=vector), x)  # gates are zero
    with torch.no_grad():
        for block in model.blocks:
            block.modulation.proj.weight.normal_()
    moved = model(x, vector=vector)
    assert not torch.allclose(moved, x) and not torch.allclose(moved, model(x, vector=-vector))
    part = model(x, vector=vector, only=slice(1, 3))
    assert torch.allclose(part, moved[:, 1:3], atol=1e-5)


def test_a_vector_may_belong_to_each_position():
    config = TransformerConfig(width=8, depth=2, heads=2, modulation=3)
    model = Transformer(config)
    for block in model.blocks:
        torch.nn.init.normal_(block.modulation.proj.weight)
    x, vector = torch.randn(2, 5, 8), torch.randn(2, 3)
    same = vector[:, None].expand(-1, 5, -1)
    assert torch.allclose(model(x, vector=same), model(x, vector=vector), atol=1e-5)
    other = same.clone()
    other[:, 3] += 1
    causal = model(x, vector=same, causal=True), model(x, vector=other, causal=True)
    assert torch.equal(causal[0][:, :3], causal[1][:, :3])
    assert not torch.allclose(causal[0][:, 3], causal[1][:, 3], atol=1e-3)
    part = model(x, vector=other, only=slice(2, 4))
    assert torch.allclose(part, model(x, vector=other)[:, 2:4], atol=1e-5)


def test_taps_are_states_after_blocks(fails):
    model = Transformer(TransformerConfig(width=8, depth=3, heads=2))
    x = torch.randn(2, 5, 8)
    out, seen = model.tapped(x, (1, 3))
    assert (
        set(seen) == {1, 3} and torch.equal(out, model(x)) and torch.equal(out, model.norm(seen[3]))
    )
    assert torch.equal(seen[1], model.blocks[0](x))
    _, part = model.tapped(x, (1, 3), only=slice(2, 4))
    assert torch.equal(part[1], seen[1][:, 2:4]) and torch.allclose(
        part[3], seen[3][:, 2:4], atol=1e-6
    )
    with fails(ValueError, "taps.align=9", "1..8"):
        validate(ViTDecoderConfig, {"taps": {"align": 9}})


def test_encoders_and_decoders_give_what_is_tapped(tree):
    data = tree(taps={"early": 1})
    data["decoder"]["taps"] = {"align": 1}
    tokenizer = Tokenizer(validate(TokenizerConfig, data)).eval()
    latents = tokenizer.latents(torch.rand(2, 3, 8, 8))
    tapped = latents.features["early"]
    assert tapped.shape == (2, 4, 16)
    tokenizer.encoder.wants_patches = True
    again = tokenizer.latents(torch.rand(2, 3, 8, 8)).features
    assert again["early"].shape == again["patches"].shape == (2, 4, 16)
    decoded = tokenizer.reconstruct(tokenizer.quantize(latents).values)
    norm = tokenizer.decoder.transformer.norm
    assert torch.allclose(norm(decoded.features["align"]), decoded.features["grid"], atol=1e-6)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_part_without_a_vector_is_not_told_to_be_modulated(part, fails):
    modulated = {"kind": "vit", "transformer": {"width": 16, "heads": 2, "modulation": 8}}
    tree = tiny_tree() | {part: modulated}
    with fails(ValueError, f"{part}.transformer.modulation=8", "leave it out"):
        validate(TokenizerConfig, tree)
