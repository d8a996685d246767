"""LlamaGen's GPT against FoundationVision/LlamaGen: logits, losses, greedy codes with guidance."""

from __future__ import annotations

import re

import pytest
import torch

from tests.support.llamagen_gpt import logits, official_config
from vistok.core.records import Condition
from vistok.pretrained import from_official, to_official
from vistok.tokens import Tokens

CASES = ("llamagen_gpt", "llamagen_gpt_t2i")


@pytest.fixture
def model(recording):
    return from_official("llamagen_gpt", recording.weights, official_config(recording.config))


def condition_of(recording, masked: bool = True) -> Condition:
    """The recorded condition; the official network sees a caption's padding unless it gets a mask,
    as its sampler gives one."""
    io = recording.io
    if "class_ids" in io:
        return Condition(label=io["class_ids"])
    mask = io["emb_masks"].bool() if masked and "emb_masks" in io else None
    return Condition(text=io["caption_features"], text_mask=mask)


def tokens_of(model, codes) -> Tokens:
    return Tokens.of(model.spec, codes[..., None])


def test_logits(recording, model):
    io, condition = recording.io, condition_of(recording, masked=False)
    full = logits(model, io["tokens"], condition)
    recording.close(full, "logits_full", "logits")
    recording.close(full[:, -1 - model.spec.length : -1], "train_logits", "logits")
    behind = logits(model, io["tokens"][:, :-1], condition)[:, -model.spec.length :]
    recording.close(behind, "train_logits", "logits")
    for name in (name for name in io if "logits" in name and "mask" in name):
        behind = logits(model, io["tokens"][:, :-1], condition_of(recording))
        recording.close(behind[:, -io[name].shape[1] :], name, "logits")


def test_loss(recording, model):
    io, given = recording.io, tokens_of(model, recording.io["tokens"])
    for name in (name for name in io if "loss" in name):
        condition = condition_of(recording, masked="mask" in name)
        if "valid" in name:  # a sample that is not valid is one without any text here
            mask = torch.ones(condition.text.shape[:2]) if "mask" not in name else io["emb_masks"]
            condition = Condition(
                text=condition.text, text_mask=(mask * io["valid"][:, None]).bool()
            )
        with torch.no_grad():
            recording.close(model(given, condition)["loss"], name, "logits")


@pytest.mark.parametrize("cache", [True, False])
def test_greedy_codes(recording, model, cache):
    """End to end, with every scale and interval of guidance that was recorded."""
    count = len(recording.io["tokens"])
    for name, expected in recording.io.items():
        found = re.fullmatch(r"greedy_cfg([\d.]+)_interval(-?[\d.]+)", name)
        if found is None:
            continue
        config = official_config(recording.config)
        config |= {"cfg_scale": float(found[1]), "cfg_interval": float(found[2])}
        sampler = from_official("llamagen_gpt", recording.weights, config)
        sampled = sampler.sample(
            condition_of(recording),
            index=torch.arange(count),
            sampling={"temperature": 0.0, "cache": cache},
        )
        assert torch.equal(sampled.indices[..., 0].long(), expected.long()), name


def test_weights_go_back_bit_for_bit(recording, model):
    state, _ = to_official(model)
    weights = recording.weights
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[key], weights[key]) for key in weights)
    model.origin = None  # as if it had been trained here
    again, written = to_official(model, "llamagen_gpt")
    assert again.keys() == weights.keys() - {"freqs_cis"}
    twin = from_official("llamagen_gpt", again, written)
    assert twin.spec == model.spec
    ours, theirs = model.state_dict(), twin.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    codes, condition = recording.io["tokens"], condition_of(recording)
    assert torch.equal(*(logits(one, codes, condition) for one in (model, twin)))
