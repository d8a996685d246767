"""One fake part for each system that is not an image, one block of N latents and N positions.

The parts lie in tests/support/fake_parts.py; everything they need is in the contracts.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

import vistok.train.config  # noqa: F401  (registers the tasks)
from vistok import editing
from vistok.config import ConfigError, load_plugins, validate, validate_part
from vistok.config.registry import build
from vistok.core.draws import Draws
from vistok.core.records import Batch
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.quantizers.atoms.fsq import FSQ
from vistok.tokenizer import Tokenizer, TokenizerConfig
from vistok.tokens import Tokens


@pytest.fixture(scope="module", autouse=True)
def _parts():
    load_plugins(["tests.support.fake_parts"])


def make(**parts) -> Tokenizer:
    transformer = {"width": 16, "depth": 1, "heads": 2}
    tree = {
        "image_size": 8,
        "encoder": {
            "kind": "vit",
            "patches": {"size": 4},
            "latents": {"count": 4},
            "transformer": transformer,
        },
        "quantizer": {"kind": "fsq", "levels": [4, 3]},
        "decoder": {
            "kind": "vit",
            "patches": {"size": 4},
            "missing": "mask_token",
            "transformer": transformer,
        },
    }
    torch.manual_seed(0)
    return Tokenizer(validate(TokenizerConfig, tree | parts))


def batch(size: int = 4) -> Batch:
    pixels = torch.rand(size, 3, 8, 8, generator=torch.Generator().manual_seed(7))
    return Batch(torch.arange(size), pixels)


def all_learn(model: Tokenizer) -> None:
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


# -- scales and branches: L, M and N differ --------------------------------------------------------


@pytest.fixture
def scales() -> Tokenizer:
    transformer = {"width": 16, "depth": 1, "heads": 2}
    return make(
        encoder={"kind": "two_maps"},
        quantizer={"kind": "two_scale_product"},
        regularizers=[{"kind": "scale_drop"}, {"kind": "latent_perturbation", "neighbours": 3}],
        decoder={"kind": "vit", "patches": {"size": 4}, "transformer": transformer},
    )


def test_tokens_values_and_latents_differ_in_number(scales):
    spec, layout = scales.spec(), scales.layout
    assert (spec.length, layout.count, spec.prefix, spec.max_prefix) == (5, 4, "block", 2)
    latents = scales.latents(batch().pixels)
    assert latents.values.shape == (4, 8, 3) and latents.grids == ((2, 2), (2, 2))
    quantized = scales.quantize(latents)
    assert quantized.values.shape == (4, 4, 6) and quantized.indices.shape == (4, 5, 2)
    assert quantized.queries.shape == (4, 5, 2, 3)
    tokens = scales.eval().encode(batch().pixels)
    assert torch.equal(scales.values(tokens), quantized.values)
    back = Tokens.from_bytes(tokens.to_bytes(), spec)
    assert torch.equal(back.indices, tokens.indices)
    assert torch.equal(scales.decode(back), scales.decode(tokens))


def test_a_prefix_of_blocks_is_the_quantizers_word(scales):
    """The decoder hides nothing: values are the sum of the scales that are kept."""
    scales.eval()
    tokens = scales.encode(batch().pixels)
    short = tokens.prefix(1)
    values = scales.values(short)
    assert torch.equal(values, values[:, :1].expand_as(values))  # one code for all positions
    mixed = tokens.prefix(torch.tensor([1, 2, 1, 2]))
    decoded = scales.decode(mixed)
    assert torch.equal(decoded[0], scales.decode(short)[0])
    assert torch.equal(decoded[1], scales.decode(tokens)[1])
    trained = scales(batch(), Draws(keep=torch.tensor([1, 2, 1, 2]))).pixels.clamp(0, 1)
    assert torch.allclose(trained, decoded, atol=1e-6)
    assert scales.decode(Tokens.from_bytes(short.to_bytes(), scales.spec())).shape == (4, 3, 8, 8)


def test_next_scale_generators_read_partial_values(scales):
    indices = scales.eval().encode(batch().pixels).indices.long()
    one = scales.quantizer.partial(indices, 1, (4, 4))
    assert one.shape == (4, 16, 6) and torch.equal(one, one[:, :1].expand_as(one))
    whole = scales.quantizer.partial(indices, 2, (2, 2))
    assert torch.allclose(whole, scales.quantizer.lookup(indices), atol=1e-6)
    with pytest.raises(ValueError, match=r"has no scales.*expected a multi_scale"):
        make().quantizer.partial(indices, 1, (2, 2))


def test_levels_and_ranks_are_obeyed(scales):
    model = scales.train()
    draws = model.draw(torch.arange(4), 0, Progress(0, 10))
    assert draws.levels.shape == (4, 2) and draws.ranks.shape == (4, 5, 2)
    draws = Draws(levels=torch.tensor([[True, False], [True, True]] * 2))
    result = model(batch(), draws)
    values, clean = result.quantized.values, result.quantized.clean
    assert not torch.equal(values[0], clean[0]) and torch.equal(values[1], clean[1])
    ranks = torch.zeros(4, 5, 2, dtype=torch.long)
    ranks[2, 0, 1] = 2
    moved = model(batch(), Draws(ranks=ranks, top_rank=2)).quantized
    assert torch.equal(moved.values[0], moved.clean[0])
    assert not torch.equal(moved.values[2], moved.clean[2])
    assert torch.equal(moved.indices, result.quantized.indices)
    loss = model(batch(), draws)
    (loss.pixels.square().mean() + sum(loss.quantized.losses.values())).backward()
    all_learn(model)


# -- more latents than tokens ----------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["mask_token", "drop"])
def test_an_encoder_may_store_fewer_latents_than_it_emits(missing):
    tiny = {"width": 16, "depth": 1, "heads": 2}
    part = {"patches": {"size": 4}, "transformer": tiny}
    model = make(
        encoder={"kind": "padded", "latents": {"count": 5}, **part},
        decoder={"kind": "vit", "missing": missing, **part},
        regularizers=[{"kind": "tail_token_drop"}],
    ).eval()
    assert (model.spec().length, model.layout.count) == (4, 5)
    tokens = model.encode(batch().pixels)
    assert tokens.indices.shape == (4, 4, 1) and model.spec().bits == 16
    decoded = model.decode(tokens)
    # The decoder sees the four that are stored, as training shows them.
    trained = model(batch(), Draws(keep=torch.tensor([4] * 4))).pixels.clamp(0, 1)
    assert torch.allclose(decoded, trained, atol=1e-6)
    everything = model(batch(), Draws(keep=torch.tensor([5] * 4))).pixels.clamp(0, 1)
    assert not torch.allclose(decoded, everything, atol=1e-4)
    short = model.decode(tokens.prefix(2))
    two = model(batch(), Draws(keep=torch.tensor([2] * 4))).pixels.clamp(0, 1)
    assert torch.allclose(short, two, atol=1e-6)
    evaluated = model(batch(), None).pixels.clamp(0, 1)  # as decoded, too
    assert torch.allclose(evaluated, decoded, atol=1e-6)
    objective, config = editing.match(batch().pixels), editing.EditConfig(steps=1)
    edited = editing.optimize(model, objective, batch().pixels, config)
    assert edited.tokens.check().indices.shape == (4, 4, 1)


def test_latents_that_are_not_stored_need_a_decoder_that_leaves_them_out(fails):
    tiny = {"width": 16, "depth": 1, "heads": 2}
    part = {"patches": {"size": 4}, "transformer": tiny}
    with fails(ConfigError, "encoder: it stores 4 of 5 latents", "missing: mask_token"):
        make(
            encoder={"kind": "padded", "latents": {"count": 5}, **part},
            decoder={"kind": "vit", "missing": "refuse", **part},
        )


# -- prefixes inside blocks ------------------------------------------------------------------------


def test_a_quantizer_that_leaves_out_ends_of_blocks_needs_no_mask(monkeypatch):
    layout = FSQ.layout

    def owned(self, grids, stored=None):
        made = layout(self, grids, stored)
        spec = made.spec.model_copy(update={"prefix": "per_block"})
        return replace(made, spec=spec)

    monkeypatch.setattr(FSQ, "layout", owned)
    part = {"patches": {"size": 4}, "transformer": {"width": 16, "depth": 1, "heads": 2}}
    model = make(decoder={"kind": "vit", "missing": "refuse", **part}).eval()
    model(batch(), Draws(keep=torch.tensor([[2]] * 4)))  # the decoder would refuse a mask
    tokens = model.encode(batch().pixels)
    assert model.decode(replace(tokens, keep=torch.tensor([[2]] * 4))).shape == (4, 3, 8, 8)


def test_each_block_has_prefixes_of_its_own():
    tiny = {"width": 16, "depth": 1, "heads": 2}
    part = {"patches": {"size": 4}, "latents": {"count": 6}, "transformer": tiny}
    model = make(
        encoder={"kind": "framewise", **part},
        regularizers=[{"kind": "nested_dropout", "lengths": "uniform"}],
    ).eval()
    spec = model.spec()
    assert (spec.blocks, spec.prefix, spec.max_prefix) == (((3,), (3,)), "per_block", 3)
    tokens = model.encode(batch().pixels)
    keep = torch.tensor([[1, 3], [2, 2], [3, 1], [3, 3]])
    cut = tokens.prefix(keep)
    assert cut.kept()[0].tolist() == [True, False, False, True, True, True]
    trained = model(batch(), Draws(keep=keep)).pixels.clamp(0, 1)
    assert torch.allclose(model.decode(cut), trained, atol=1e-6)
    back = Tokens.from_bytes(cut.to_bytes(), spec)
    assert torch.equal(model.decode(back), model.decode(cut))
    drawn = model.draw(torch.arange(64), 0, Progress(0, 10)).keep
    assert drawn.shape == (64,) and set(drawn.tolist()) == {1, 2, 3}
    one = model(batch(), Draws(keep=torch.tensor([2] * 4))).pixels.clamp(0, 1)
    assert torch.allclose(model.decode(tokens.prefix(2)), one, atol=1e-6)


# -- a decoder that samples, in a frozen space, behind a bottleneck that samples too ---------------


def flow(**changes) -> Tokenizer:
    parts = {
        "input_space": {"kind": "borrowed"},
        "output_space": {"kind": "borrowed"},
        "encoder": {
            "kind": "vit",
            "patches": {"size": 2},
            "latents": {"count": 4},
            "transformer": {"width": 16, "depth": 1, "heads": 2},
        },
        "quantizer": {"kind": "kl", "dim": 3},
        "decoder": {"kind": "fake_flow"},
    }
    return make(**(parts | changes))


def test_three_parts_want_noise():
    model = flow().train()
    draws = model.draw(torch.arange(4), 0, Progress(0, 10))
    shapes = {name: tuple(part.noise.shape) for name, part in draws.parts.items()}
    space = (4, 4, 4, 4)
    assert shapes == {"input_space": space, "quantizer": (4, 4, 3), "decoder": space}
    assert not torch.equal(draws.part("input_space").noise, draws.part("decoder").noise)
    assert draws.part("decoder").time.shape == (4,)
    again = model.draw(torch.tensor([2, 3]), 0, Progress(0, 10))  # keyed by sample
    for name, part in draws.parts.items():
        assert torch.equal(again.part(name).noise, part.noise[2:])
    result = model(batch(), draws)
    noise, time = draws.part("decoder").noise, draws.part("decoder").time[:, None, None, None]
    clean = result.target_in_space
    assert torch.allclose(result.noisy.x, time * noise + (1 - time) * clean, atol=1e-6)
    guess = result.noisy.x - time * result.decoded.prediction
    assert torch.allclose(result.decoded.estimate, guess, atol=1e-6)
    (result.decoded.prediction - (noise - clean)).square().mean().backward()
    all_learn(model)


def test_a_borrowed_network_is_saved_by_name_and_hash(tmp_path, fails):
    model = flow()
    assert not any("network" in key for key in model.state_dict())
    assert model.frozen_record() == {"fake-vae": "5" * 64}
    assert model.input_space.network is model.output_space.network  # two spaces, one network
    assert copy.deepcopy(model).input_space.network is model.input_space.network
    model.save_pretrained(tmp_path)
    again = Tokenizer.from_pretrained(tmp_path)
    tokens = model.eval().encode(batch().pixels)
    assert torch.equal(again.decode(tokens), model.decode(tokens))
    config = (tmp_path / "config.json").read_text()
    other = config.replace(f'"sha256": "{"5" * 64}"', f'"sha256": "{"6" * 64}"')
    assert other != config
    (tmp_path / "config.json").write_text(other)
    with fails(ConfigError, "config.json: frozen", "fake-vae", "same weight files"):
        Tokenizer.from_pretrained(tmp_path)


def test_noise_of_a_decoder_is_keyed_by_sample():
    model = flow().eval()
    tokens = model.encode(batch().pixels)
    whole = model.decode(tokens, seed=3)
    assert whole.shape == (4, 3, 8, 8)
    part = model.decode(tokens.select([2, 3]), seed=3, index=torch.tensor([2, 3]))
    assert torch.allclose(part, whole[2:], atol=1e-6)
    assert not torch.allclose(model.decode(tokens, seed=4), whole, atol=1e-3)
    evaluated = model(batch(), None).pixels.clamp(0, 1)  # evaluation: seed 0
    assert torch.allclose(evaluated, model.decode(tokens, seed=0), atol=1e-6)
    short = model.decode(tokens.prefix(2), seed=3)
    assert not torch.allclose(short, whole, atol=1e-3)


def test_settings_of_sampling_are_the_decoders_own(fails):
    model = flow().eval()
    tokens = model.encode(batch().pixels)
    assert model.sampling.steps == 4
    four, one = model.decode(tokens), model.decode(tokens, sampling={"steps": 1})
    assert not torch.allclose(four, one, atol=1e-4)
    assert torch.equal(model.decode(tokens, sampling=model.sampling), four)
    guided = model.decode(tokens, sampling={"guidance": {"scale": 3.0}})
    assert not torch.allclose(four, guided, atol=1e-4)
    with fails(ConfigError, "sampling: stepz: unknown key", "'steps'"):
        model.decode(tokens, sampling={"stepz": 1})
    with fails(ConfigError, "sampling: guidance.scale"):
        model.decode(tokens, sampling={"guidance": {"scale": float("nan")}})
    plain = make().eval()
    with fails(ValueError, "does not sample; leave it out"):
        plain.decode(plain.encode(batch().pixels), sampling={"steps": 1})
    with fails(ValueError, "this decoder samples"):
        model.reconstruct(model.values(tokens))


def test_a_codebook_from_latents_on_their_grids(scales, monkeypatch):
    """Data-dependent codebooks see latents where they lie, not as a heap of rows."""
    seen = []
    monkeypatch.setattr(
        type(scales.quantizer), "initialize", lambda self, latents, rng: seen.append(latents)
    )
    task = build(validate_part("task", {"kind": "tokenizer", "tokenizer": scales.describe()}), None)
    task.prepare(batch(), Rng(0))
    assert seen[0].values.shape == (4, 8, 3) and seen[0].grids == ((2, 2), (2, 2))
