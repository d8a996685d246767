"""LARP's generator against hywang66/LARP: logits, loss, guidance, greedy sampling."""

import re

import pytest
import torch

from vistok.core.records import Condition
from vistok.pretrained import from_official, to_official
from vistok.tokens import Tokens

CASE = "larp_ar"


@pytest.fixture
def model(recording):
    return from_official("larp_ar", recording.weights, recording.config)


def given(recording, model) -> Condition:
    """Classes, or tokens of known frames; the separator behind them is the model's own."""
    cond = recording.io["cond"]
    if cond.ndim == 1:
        return Condition(label=torch.where(cond < model.num_classes, cond, -1))
    assert (cond[:, -1] == model.spec.vocab[0]).all()
    return Condition(prefix=Tokens.of(model.spec, cond[:, :-1, None]))


def logits(model, tokens, condition):
    start = model.start(condition, len(tokens))
    x = torch.cat([start, model.embed(tokens[:, :-1, None])], dim=1)
    return model.head.out(model.run(x, 0, start)[:, start.shape[1] - 1 :])


@torch.no_grad()
def test_logits_and_loss(recording, model):
    io, condition = recording.io, given(recording, model)
    found = logits(model, io["tokens"], condition)
    recording.close(found, "logits")
    tokens = Tokens.of(model.spec, io["tokens"][..., None])
    recording.close(model(tokens, condition)["loss"], "loss")
    total, count = model.evaluate(tokens, condition)["nll"]
    recording.close(torch.tensor(total / count), "loss")
    if "uncond_logits" in io:
        free = logits(model, io["tokens"], Condition())
        recording.close(free, "uncond_logits")
        for name in (name for name in io if name.startswith("cfg_logits_")):
            scale = float(name.removeprefix("cfg_logits_"))
            recording.close(free + scale * (found - free), name)


@pytest.mark.parametrize("cache", [True, False])
def test_greedy_sampling(recording, model, cache):
    io, index = recording.io, torch.arange(len(recording.io["tokens"]))
    found = {name: re.fullmatch(r"greedy(?:_cfg([\d.]+))?", name) for name in io}
    scales = {name: float(match[1] or 1) for name, match in found.items() if match}
    if not scales:
        pytest.skip("no greedy sequence is recorded")
    for name, scale in scales.items():
        settings = {"temperature": 0.0, "guidance": scale, "cache": cache}
        sampled = model.sample(given(recording, model), index=index, sampling=settings)
        assert torch.equal(sampled.indices[..., 0].long(), io[name].long()), name


def test_weights_go_back_bit_for_bit(recording, model):
    state, _ = to_official(model)
    weights = recording.weights
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[key], weights[key]) for key in weights)
    model.origin = None  # as if it had been trained here
    again, written = to_official(model, "larp_ar")
    assert all(torch.equal(again[key], weights[key]) for key in weights)
    twin = from_official("larp_ar", again, written)
    ours, theirs = model.state_dict(), twin.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert (twin.config.condition, twin.spec) == (model.config.condition, model.spec)
    assert twin.sampling == model.sampling
