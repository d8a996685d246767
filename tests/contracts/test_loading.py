"""Loading makes no first weights: every part and family comes out as the one that was saved."""

from __future__ import annotations

import pytest
import torch

from tests.contracts.test_parts import kinds
from tests.support.generators import CONDITION, INDEX, KINDS, held, lively, made, spec_for
from tests.support.loading import loaded, official_both_ways, the_same
from tests.support.official import FLAT, MODELS, official
from vistok.contracts.case import around, images, tiny
from vistok.pretrained import from_official


@kinds("space", "head", "encoder", "quantizer", "decoder", "regularizer")
def test_a_loaded_tokenizer_is_the_one_that_was_saved(family, kind, tmp_path):
    model = tiny(**around(family, kind)).eval()
    again = loaded(model, tmp_path)
    the_same(model, again)
    tokens = model.encode(images().pixels)
    assert again.encode(images().pixels) == tokens
    assert torch.equal(again.decode(tokens), model.decode(tokens))


@kinds("head", "encoder", "quantizer", "decoder")
def test_tokenizers_compute_in_bf16(family, kind, tmp_path):
    model = tiny(**around(family, kind)).eval()
    half = loaded(model, tmp_path, dtype=torch.bfloat16)
    for name, parameter in half.named_parameters():
        whole = name.startswith("quantizer.")
        assert parameter.dtype == (torch.float32 if whole else torch.bfloat16), name
    tokens = half.encode(images().pixels)
    pixels = half.decode(tokens)
    assert pixels.isfinite().all()
    exact = model.decode(tokens)
    assert (pixels.float() - exact).abs().max() < 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_generator_is_the_one_that_was_saved(kind, tmp_path):
    model = lively(made(kind, spec_for(kind))).eval()
    again = loaded(model, tmp_path)
    the_same(model, again)
    sample = lambda one: held(one.sample(CONDITION, index=INDEX, seed=3))
    assert torch.equal(sample(model), sample(again))
    half = loaded(model, tmp_path, dtype="bf16")
    assert half.sample(CONDITION, index=INDEX).check().spec == model.spec


@pytest.mark.parametrize("name", [*MODELS, *FLAT, "maskgit_vqgan"])
def test_official_weights_take_the_place_of_first_ones(name, monkeypatch):
    fast, slow = official_both_ways(lambda: from_official(*official(name)), monkeypatch)
    the_same(slow, fast)
