"""RobusTok's RAR with preservation (qiuk2/RobusTok): true tokens replace sampled ones."""

import pytest
import torch

from tests.support.rar import logits, official_tree
from vistok.core.records import Condition
from vistok.generators.sampling import COLDEST
from vistok.pretrained import from_official
from vistok.tokens import Tokens

CASE = "robustok_preserved_generation"


@pytest.fixture
def model(recording):
    own = recording.config
    model = {
        "vq_model": {"codebook_size": own["K"]},
        "generator": {
            "hidden_size": own["h"],
            "num_hidden_layers": own["L"],
            "num_attention_heads": own["H"],
            "intermediate_size": own["inter"],
            "image_seq_len": own["N"],
            "condition_num_classes": own["C"],
        },
    }
    run = {
        # A temperature near 0 is the most likely code; beneath COLDEST that is written as 0.
        "temperature": own["temps"] if own["temps"] >= COLDEST else 0.0,
        "guidance_scale": own["gs"],
        "guidance_scale_pow": own["p"],
    }
    return from_official("rar", recording.weights, official_tree(model, run))


@pytest.mark.parametrize("cache", [True, False])
def test_preserved_generation(recording, model, cache):
    io, own = recording.io, recording.config
    index, true = torch.arange(own["B"]), Tokens.of(model.spec, io["true_tokens"][..., None])
    mask = io["u"] < own["sigma"]
    assert torch.equal(mask, io["preserved"])
    sampled = lambda **known: model.sample(
        Condition(label=io["label"], **known), index=index, sampling={"cache": cache}
    ).indices[..., 0]
    mixed = sampled(known=true, known_mask=mask)
    assert torch.equal(mixed.long(), io["mixed_tokens"])
    assert torch.equal(sampled().long(), io["greedy_tokens"])
    nothing = torch.zeros_like(mask)
    assert torch.equal(sampled(known=true, known_mask=nothing).long(), io["greedy_tokens"])
    found = logits(model, io["mixed_tokens"], Condition(label=io["label"]))
    recording.close(found, "logits_teacher_forced")
