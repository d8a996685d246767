"""MaskGen-VQ against bytedance/1d-tokenizer: pooled features with the score, logits, weights."""

import copy

import pytest
import torch

from vistok.core.records import Condition
from vistok.pretrained import from_official, to_official

CASE = "maskgen_vq"


def tree_of(recording) -> dict:
    """The official config, with the number of text positions, which it does not hold."""
    tree = copy.deepcopy(recording.config)
    tree["model"]["vq_model"]["text_context_length"] = recording.case["run"]["text_len"]
    return tree


@pytest.fixture
def model(recording):
    return from_official("maskgen", recording.weights, tree_of(recording))


def condition_of(recording, model) -> Condition:
    io, reads = recording.io, model.config.condition.score is not None
    score = io["aesthetic_score"] if reads else None
    return Condition(text=io["text_features"], pooled=io["text_pooled"].squeeze(1), score=score)


@torch.no_grad()
def test_pooled_features_with_the_score(recording, model):
    if "pooled_with_micro" not in recording.io:
        return
    condition = condition_of(recording, model)
    found = model.condition.features(condition, len(condition.pooled))[-1]
    recording.close(found[:, None], "pooled_with_micro")


@torch.no_grad()
def test_logits(recording, model):
    tokens, codes = recording.io["tokens"], model.spec.vocab[0]
    mask = tokens == codes
    indices = tokens.masked_fill(mask, 0)[..., None]
    condition = condition_of(recording, model)
    recording.close(model.logits(indices, mask, condition)[0], "logits")


@torch.no_grad()
def test_samples_without_their_condition_have_the_empty_text(recording, model):
    """The text of the last sample stands for the empty one."""
    tokens = recording.io["tokens"][-1:].expand_as(recording.io["tokens"])
    mask = tokens == model.spec.vocab[0]
    indices = tokens.masked_fill(mask, 0)[..., None]
    condition = condition_of(recording, model)
    last = condition.select([-1])
    full = torch.ones(last.text.shape[:2], dtype=torch.bool)
    model.condition.fill_empty(Condition(text=last.text, text_mask=full, pooled=last.pooled))
    if condition.score is not None:
        condition = Condition(
            text=condition.text, pooled=condition.pooled, score=last.score.expand(len(tokens))
        )
    null = torch.ones(len(tokens), dtype=torch.bool)
    found = model.logits(indices, mask, condition, null)[0]
    torch.testing.assert_close(found[-1:], recording.io["logits"][-1:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found, found[-1:].expand_as(found), atol=1e-6, rtol=1e-5)


def test_weights_go_back_bit_for_bit(recording, model):
    weights = recording.weights
    state, written = to_official(model)
    assert written == tree_of(recording) and state.keys() == weights.keys()
    assert all(torch.equal(state[key], weights[key]) for key in weights)
    model.origin = None  # as if it had been trained here: rows that nobody reads are zero
    again, written = to_official(model, "maskgen")
    assert again.keys() == weights.keys()
    twin = from_official("maskgen", again, written)
    ours, theirs = model.state_dict(), twin.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert (twin.spec.blocks, twin.spec.vocab) == (model.spec.blocks, model.spec.vocab)
    assert twin.config.model_copy(update={"condition": None}) == model.config.model_copy(
        update={"condition": None}
    )
