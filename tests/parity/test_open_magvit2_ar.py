"""Open-MAGVIT2's generator: logits of both sub-tokens, steps of sampling, weights both ways."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import vistok.generators.sequential as sequential
from vistok.core.records import Condition
from vistok.pretrained import from_official, to_official
from vistok.pretrained.generators.open_magvit2 import PREFIX
from vistok.tokens import Tokens

CASE = "open_magvit2_ar"


@pytest.fixture
def model(recording):
    return from_official(CASE, recording.weights, recording.config)


def codes_of(recording) -> torch.Tensor:
    """[B, N, 2] sub-tokens."""
    return torch.stack([recording.io["pre"], recording.io["post"]], dim=-1)


def tokens_of(recording, model) -> Tokens:
    """Codes of all bits: bits of the first sub-token are the lower ones, as channels of LFQ come
    in its little-endian index."""
    first, bits = recording.io["pre"], recording.config["factorized_bits"]
    index = first + (recording.io["post"] << bits[0])
    tokens = Tokens.of(model.spec, index[..., None])
    assert torch.equal(model.regrouped(tokens).indices.long(), codes_of(recording))
    return tokens


def label_of(recording) -> Condition:
    return Condition(label=recording.io["cond"][:, 0])


@torch.no_grad()
def test_teacher_forced(recording, model):
    codes, condition = codes_of(recording), label_of(recording)
    start = model.start(condition, len(codes))
    hidden = model.run(torch.cat([start, model.embed(codes[:, :-1])], dim=1), 0, start)
    names = ("pre", "post")
    for f, logits in enumerate(model.head.logits(hidden, codes)):
        recording.close(logits, f"logits_{names[f]}")
        nats = F.cross_entropy(logits.flatten(0, 1), codes[..., f].flatten())
        recording.close(nats, f"loss_{names[f]}")
    losses = recording.io["loss_pre"] + recording.io["loss_post"]
    loss = model(tokens_of(recording, model), condition)["loss"]
    recording.close(loss, losses, "loss_pre")


@pytest.mark.parametrize("cache", [True, False])
def test_steps_of_sampling_see_the_recorded_logits(recording, model, cache, monkeypatch):
    """The recorded codes are imposed, and what they would have been chosen from is looked at; that
    of the second sub-token is compared where the first one that was chosen is the recorded one."""
    tokens, condition = tokens_of(recording, model), label_of(recording)
    given = Condition(label=condition.label, known=tokens, known_mask=tokens.kept())
    seen, choose = [], sequential.choose
    with monkeypatch.context() as patch:
        look = lambda *args: (seen.append((args[0].clone(), one := choose(*args))), one)[1]
        patch.setattr(sequential, "choose", look)
        model.sample(given, index=torch.arange(len(tokens)), sampling={"cache": cache})
    first = torch.stack([logits for logits, _ in seen[::2]], dim=1)
    recording.close(first, "logits_pre")
    chosen = torch.stack([code for _, code in seen[::2]], dim=1)
    right = chosen == recording.io["pre"]
    second = torch.stack([logits for logits, _ in seen[1::2]], dim=1)
    recording.close(second[right], recording.io["logits_post"][right], "logits_post")


@torch.no_grad()
def test_the_recorded_codes_come_out_of_draws_that_choose_them(recording, model, monkeypatch):
    """End to end: a uniform number inside each recorded code's share of its distribution gives the
    recorded codes, every step seeing what was sampled before it."""
    codes = codes_of(recording)
    shares = [recording.io[f"logits_{name}"].double().softmax(-1) for name in ("pre", "post")]
    draws = []
    for f, share in enumerate(shares):
        own = codes[..., f, None]
        draws.append((share.cumsum(-1).gather(-1, own) - share.gather(-1, own) / 2)[..., 0])
    u = torch.stack(draws, dim=-1)
    monkeypatch.setattr(sequential.Rng, "uniform", lambda *args: u)
    sampled = model.sample(label_of(recording), index=torch.arange(len(codes)))
    assert torch.equal(model.regrouped(sampled).indices.long(), codes)


def test_weights_go_back_bit_for_bit(recording, model):
    state, config = to_official(model)
    weights = {f"{PREFIX}{key}": tensor for key, tensor in recording.weights.items()}
    assert state.keys() == weights.keys() and config == recording.config
    assert all(torch.equal(state[key], weights[key]) for key in weights)
    model.origin = None  # as if it had been trained here
    again, written = to_official(model, CASE)
    twin = from_official(CASE, again, written)
    ours, theirs = model.state_dict(), twin.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    codes, condition = tokens_of(recording, model), label_of(recording)
    with torch.no_grad():
        assert torch.equal(model(codes, condition)["loss"], twin(codes, condition)["loss"])
