"""Instella-T2I's autoregressive generator: logits over bits, guided probabilities of sampling."""

from __future__ import annotations

import pytest
import torch

import vistok.generators.sequential as sequential
from tests.support.instella import model_of, official_config, text_of
from vistok.core.records import Condition
from vistok.pretrained import from_official, to_official
from vistok.tokens import Tokens

CASE = "instella_ar"


@pytest.fixture
def model(recording):
    return model_of(recording, "ar")


def tokens_of(model, bits: torch.Tensor) -> Tokens:
    return Tokens.of(model.spec, bits.long())


@torch.no_grad()
def logits(model, bits, condition):
    """[B, n, C]: each position, and the one behind, from those before it."""
    start = model.start(condition, len(bits))
    x = torch.cat([start, model.embed(bits)], dim=1)
    hidden = model.run(x, 0, start, **model.texts_of(condition, len(bits)))
    return model.head.out(hidden)


def test_teacher_forced(recording, model):
    io, condition = recording.io, text_of(recording)
    recording.close(logits(model, io["code"][:, :-1], condition), "logits")
    recording.close(logits(model, io["code"][:, :0], condition), "logits_first")
    with torch.no_grad():
        nats = model(tokens_of(model, io["code"]), condition)["loss"]
    recording.close(nats / len(model.spec.vocab), "loss")  # there a mean over bits


def looked_at(monkeypatch, model, recording, **settings):
    """Probabilities [B, L, C] that the sampler drew the recorded bits from, and what it gave.

    The unconditional rows of a recording are texts of their own, so samples are made one by one.
    """
    io, found, given = recording.io, [], []
    samples = len(io["sample_code"])
    free = text_of(recording).select(slice(samples, None))
    for row in range(samples):
        model.texts.fill(free.text[row], free.text_mask[row])
        known = tokens_of(model, io["sample_code"][row : row + 1])
        one = text_of(recording).select([row])
        one = Condition(
            text=one.text, text_mask=one.text_mask, known=known, known_mask=known.kept()
        )
        seen, choose = [], sequential.choose
        with monkeypatch.context() as patch:
            look = lambda *a, seen=seen, choose=choose: (seen.append(a[0][:, 1]), choose(*a))[1]
            patch.setattr(sequential, "choose", look)
            given.append(model.sample(one, index=torch.tensor([row]), sampling=settings).indices)
        logits = torch.stack(seen, 1).view(1, model.spec.length, -1)
        found.append(torch.sigmoid(logits / model.settings(settings).temperature))
    return torch.cat(found), torch.cat(given)


@pytest.mark.parametrize("cache", [True, False])
def test_guided_sampling(recording, model, cache, monkeypatch):
    found, given = looked_at(monkeypatch, model, recording, cache=cache)
    recording.close(found, "sample_probability")
    assert torch.equal(given.float(), recording.io["sample_code"])


def test_the_draws_make_the_code(recording, model, monkeypatch):
    """End to end: uniform numbers on the recorded side of each probability give the recorded
    bits, every step seeing what was sampled before it."""
    io = recording.io
    free = text_of(recording).select(slice(len(io["sample_code"]), None))
    for row, bits in enumerate(io["sample_code"]):
        model.texts.fill(free.text[row], free.text_mask[row])
        p = io["sample_probability"][row]  # a bit is 1 where the number is not below 1 - p
        u = torch.where(bits > 0.5, 1 - p / 2, (1 - p) / 2).clamp(max=1 - 1e-7)
        with monkeypatch.context() as patch:
            patch.setattr(sequential.Rng, "uniform", lambda *a, u=u: u[None])
            sampled = model.sample(text_of(recording).select([row]), index=torch.tensor([row]))
        assert torch.equal(sampled.indices[0].float(), bits)


def test_temperature_zero_takes_the_likelier_bit(recording, model):
    one = text_of(recording).select([0])
    cold = model.sample(one, index=torch.arange(1), sampling={"temperature": 0.0})
    again = model.sample(one, index=torch.arange(1), seed=1, sampling={"temperature": 0.0})
    assert torch.equal(cold.indices, again.indices)


def test_weights_go_back_bit_for_bit(recording, model):
    state, _ = to_official(model)
    weights = recording.weights
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[key], weights[key]) for key in weights)
    model.origin = None  # as if it had been trained here: layers that do not run are zero
    again, written = to_official(model, "instella_t2i")
    twin = from_official("instella_t2i", again, written)
    assert twin.config == model.config and twin.spec == model.spec
    assert written["guidance_scale"] == pytest.approx(
        official_config(recording, "ar")["guidance_scale"]
    )
    ours, theirs = model.state_dict(), twin.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours if "texts" not in key)
