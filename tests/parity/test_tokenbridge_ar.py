"""TokenBridge's generator: levels, trunk, logits of dimensions, steps of sampling, weights both
ways."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vistok.config.registry import build
from vistok.core.draws import Draws, PartDraws
from vistok.core.records import Condition, Latents
from vistok.pretrained import FAMILIES, from_official, to_official
from vistok.tokens import Tokens

CASE = "tokenbridge_ar"


@pytest.fixture
def model(recording):
    return from_official(CASE, recording.weights, recording.config)


def order_of(model) -> list[int]:
    return list(model.head.order)


def label_of(recording) -> Condition:
    return Condition(label=recording.io["labels"])


def on_grid(model, values: torch.Tensor) -> torch.Tensor:
    """[B, L, C] in raster order -> [B, C, h, w]."""
    return values.transpose(1, 2).unflatten(2, model.spec.blocks[0])


@torch.no_grad()
def test_quantizer(recording, model):
    quantizer, io = build(model.config.quantizer), recording.io
    latents = io["latents"].flatten(2).transpose(1, 2)
    recording.close(latents, "latent_tokens")
    found = quantizer(Latents(latents, model.spec.blocks))
    assert torch.equal(found.indices, io["indices"])
    recording.close(quantizer.lookup(found.indices), "dequantised")
    recording.close(model.embed.values(io["indices"]), "dequantised")
    fixed = FAMILIES[CASE].fixed(model)
    for name in ("boundaries", "reconstruction_values"):
        recording.close(fixed[name], name)


@pytest.mark.parametrize("room", ["exact", "all"])
@torch.no_grad()
def test_teacher_forced(recording, model, room):
    """Stage by stage, with as much room as there are visible positions, and with room for all."""
    io, mask = recording.io, recording.io["mask"].bool()
    visible = int((~mask).sum(-1).max())
    x = model.inputs(io["indices"], model.front(label_of(recording), len(mask)))
    even = room == "exact"
    encoded = model.trunk.encode(x, mask, visible if even else None, even)
    recording.close(encoded[:, : io["encoder_out"].shape[1]], "encoder_out")
    features = model.trunk.decode(io["encoder_out"], mask)
    recording.close(features, "decoder_features")
    assert torch.equal(io["indices"][..., order_of(model)], io["targets_in_channel_order"])
    logits = model.head.logits(io["decoder_features"][mask], io["indices"][mask])
    recording.close(torch.stack([logits[f] for f in order_of(model)], dim=1), "channel_logits")
    nats = [F.cross_entropy(part, io["indices"][mask][:, f]) for f, part in enumerate(logits)]
    recording.close(torch.stack(nats).mean(), "loss")


@torch.no_grad()
def test_the_loss_end_to_end(recording, model):
    io = recording.io
    draws = Draws(parts={"generator": PartDraws(mask=io["mask"].bool())})
    # The recorded masks may leave more positions visible than those of training.
    masks = model.config.masks.model_copy(update={"low": 0.0})
    model.config = model.config.model_copy(update={"masks": masks})
    tokens = Tokens.of(model.spec, io["indices"])
    recording.close(model(tokens, label_of(recording), draws)["loss"], "loss")


@torch.no_grad()
def test_dimensions_one_by_one(recording, model):
    found = model.head.sample(recording.io["greedy_feature"], lambda logits, f: logits.argmax(-1))
    expected = recording.io["greedy_indices_in_channel_order"]
    assert torch.equal(found[:, order_of(model)], expected)


@torch.no_grad()
def test_greedy_sampling(recording, model):
    """In the recorded orders, whose last positions are predicted first."""
    order = recording.io["sample_orders"].flip(1)
    settings = model.settings({"temperature": 0.0})
    u = torch.zeros(*order.shape, len(model.spec.vocab))
    tokens = model.unmasked(label_of(recording), order, u, settings)
    assert torch.equal(tokens.indices.long(), recording.io["sample_indices"])
    values = model.embed.values(tokens.indices.long())
    recording.close(on_grid(model, values), "sample_latents")


def test_weights_go_back_bit_for_bit(recording, model):
    weights = recording.weights
    state, config = to_official(model)
    assert config == recording.config and state.keys() == weights.keys()
    assert all(torch.equal(state[key], weights[key]) for key in weights)
    model.origin = None  # as if it had been trained here
    again, written = to_official(model, CASE)
    assert again.keys() == weights.keys()
    twin = from_official(CASE, again, written)
    ours, theirs = model.state_dict(), twin.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    run = lambda one: one.sample(label_of(recording), index=torch.arange(2)).indices
    assert torch.equal(run(model), run(twin))
