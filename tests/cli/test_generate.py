"""`vistok generate`: its words, and which tokenizer decodes."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from tests.cli.test_cli import call, mistake
from vistok.config import validate_part
from vistok.config.registry import build
from vistok.storage.weights import sha256


@pytest.fixture
def models(make_tokenizer, tmp_path, monkeypatch):
    """The current folder: a tokenizer `tok`, a generator `gen` that names it."""
    monkeypatch.chdir(tmp_path)
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained("tok")
    config = {
        "kind": "autoregressive",
        "transformer": {"width": 16, "depth": 1, "heads": 2},
        "condition": {"classes": 2},
    }
    torch.manual_seed(0)
    generator = build(validate_part("generator", config), tokenizer.spec())
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    generator.classes = ("cat", "dog")
    generator.tokenizer = {"name": "tok", "sha256": sha256("tok/model.safetensors")}
    generator.save_pretrained("gen")
    return tmp_path


def image(path: str = "generated.png") -> bytes:
    return Image.open(path).tobytes()


def test_the_tokenizer_may_be_left_out(models):
    call("generate", "gen", "tok", "--class", "dog", "--count", 4)
    named = image()
    call("generate", "gen", "--class", "dog", "--count", 4)
    assert image() == named
    call("generate", "gen", "--class", "cat", "--count", 4)
    assert image() != named


def test_settings_are_words(models):
    call("generate", "gen", "--count", 2)
    default = image()
    call("generate", "gen", "--count", 2, "sampling.temperature=1.0")
    assert image() == default
    call("generate", "gen", "tok", "sampling.temperature=0.01", "--count", 2, "sampling.top_k=1")
    assert image() != default


def test_mistakes_are_one_line(models):
    assert "temprature: unknown key" in mistake("generate", "gen", "sampling.temprature=1")
    assert "expected sampling.KEY=VALUE or decoder_sampling" in mistake("generate", "gen", "x.y=1")
    assert "does not sample" in mistake("generate", "gen", "decoder_sampling.steps=3")
    assert "expected one of cat, dog or 0..1" in mistake("generate", "gen", "--class", "cow")
    assert "not a generator but a tokenizer" in mistake("generate", "tok")
    (models / "tok/model.safetensors").rename("elsewhere.safetensors")
    assert "name the tokenizer too" in mistake("generate", "gen")


def test_other_weights_than_those_it_learned(models, make_tokenizer):
    other = make_tokenizer()
    with torch.no_grad():
        next(other.parameters()).add_(1)
    other.save_pretrained("tok")
    assert "tokens of other weights than tok has now" in mistake("generate", "gen")


def test_info_of_a_generator(models):
    text = call("info", "gen")
    for part in ("autoregressive", "cat, dog", "sampling.temperature=1.0", "tok"):
        assert part in text
