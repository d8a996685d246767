"""NAR against ThisisBillhe/NAR: order, mask, logits of every head, parallel sampling."""

import re

import pytest
import torch

from vistok.core.records import Condition
from vistok.generators.orders import near_to_far
from vistok.pretrained import from_official, to_official
from vistok.tokens import Tokens

CASES = ("nar_image", "nar_video")


@pytest.fixture
def model(recording):
    return from_official("nar", recording.weights, recording.config)


def given(recording) -> Condition:
    """Classes, or features of captions, with a mask where they are padded."""
    cond, mask = recording.io["cond"], recording.io.get("emb_masks")
    if not cond.is_floating_point():
        return Condition(label=cond)
    return Condition(text=cond, text_mask=None if mask is None else mask.bool())


def test_order_and_mask(recording, model):
    order = [(step, cell) for step, cells in enumerate(near_to_far(model.grid)) for cell in cells]
    assert torch.equal(torch.tensor(order), recording.io["order"])
    assert torch.equal(model.mask, recording.io["mask"].bool())


@torch.no_grad()
def test_logits_and_loss(recording, model):
    io, condition = recording.io, given(recording)
    codes = io["tokens"][..., None]
    recording.close(model.logits(codes, condition), "logits")
    tokens = Tokens.of(model.spec, codes)
    recording.close(model(tokens, condition)["loss"], "loss")
    total, count = model.evaluate(tokens, condition)["nll"]
    recording.close(torch.tensor(total / count), "loss")
    if "uncond_logits" in io:
        recording.close(model.logits(codes, Condition()), "uncond_logits")
    if "logits_right" in io:  # the heads by themselves, at the class and every token
        x = torch.cat([model.start(condition, len(codes)), model.embed(codes)], dim=1)
        states = model.states(x, torch.arange(x.shape[1]), model.mask)
        for head, state, name in zip(model.head, states, ("below", "right"), strict=True):
            recording.close(head.out(state), f"logits_{name}")


@pytest.mark.parametrize("cache", [True, False])
def test_parallel_sampling(recording, model, cache):
    io, index = recording.io, torch.arange(len(recording.io["tokens"]))
    # Guidance needs a null class, and the official cache a head of keys for each of queries.
    found = {name: re.fullmatch(r"greedy(?:_cfg([\d.]+))?", name) for name in io}
    scales = {name: float(match[1] or 1) for name, match in found.items() if match}
    for name, scale in scales.items():
        settings = {"temperature": 0.0, "guidance": scale, "cache": cache}
        sampled = model.sample(given(recording), index=index, sampling=settings)
        assert torch.equal(sampled.indices[..., 0].long(), io[name]), name
        if scale == 1.0:  # what was sampled at once is what each cell would have chosen
            found = model.logits(io[name][..., None], given(recording)).argmax(-1)
            assert torch.equal(found, io[name])


def test_weights_go_back_bit_for_bit(recording, model):
    state, _ = to_official(model)
    weights = recording.weights
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[key], weights[key]) for key in weights)
    model.origin = None  # as if it had been trained here
    again, written = to_official(model, "nar")
    assert all(torch.equal(again[key], weights[key]) for key in weights)
    twin = from_official("nar", again, written)
    ours, theirs = model.state_dict(), twin.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert (twin.depths, twin.spec, twin.sampling) == (model.depths, model.spec, model.sampling)
