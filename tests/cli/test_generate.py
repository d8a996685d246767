"""`vistok generate`: its words, and which tokenizer decodes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.cli.test_cli import call, mistake
from vistok.config import validate_part
from vistok.config.registry import build
from vistok.generators import Generator
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
    call("generate", "gen", "--class", "dog", "--count", 4, "--overwrite")
    assert image() == named
    call("generate", "gen", "--class", "cat", "--count", 4, "--overwrite")
    assert image() != named


def test_settings_are_words(models):
    call("generate", "gen", "--count", 2)
    default = image()
    call("generate", "gen", "--count", 2, "sampling.temperature=1.0", "--overwrite")
    assert image() == default
    greedy = ("sampling.temperature=0.01", "sampling.top_k=1", "--overwrite")
    call("generate", "gen", "tok", "--count", 2, *greedy)
    assert image() != default


def test_samples_are_decoded_to_the_size_that_is_asked_for(tmp_path, monkeypatch):
    from tests.support.recipes import TINY, read_config
    from vistok.tokenizer import Tokenizer

    monkeypatch.chdir(tmp_path)
    tokenizer = Tokenizer(read_config(TINY["instella"]).task.tokenizer)
    tokenizer.save_pretrained("bits")
    trunk = {"width": 16, "depth": 1, "heads": 2}
    config = {"kind": "autoregressive", "transformer": trunk}
    build(validate_part("generator", config), tokenizer.spec()).save_pretrained("gen")
    wide = {}
    for size in ("32", "64"):
        call("generate", "gen", "bits", "--count", 1, "--size", size, "--out", f"{size}.png")
        wide[size] = Image.open(f"{size}.png").size[0]
    assert wide["64"] - wide["32"] == 32
    assert "are no multiples of 8" in mistake("generate", "gen", "bits", "--size", "33")


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
    said = mistake("generate", "gen", "tok")
    assert "tok: not the tokenizer whose tokens gen learned" in said and "noise" in said
    assert not (models / "generated.png").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--count", 0), "--count 0: expected 1 or more"),
        (("--count", -3), "--count -3: expected 1 or more"),
        (("--count", 10**9), "2000000000 samples in one grid; expected at most 10000"),
        (("sampling.temperature=1e-40",), "sampling: temperature: got 1e-40; expected 0 (greedy)"),
        (("sampling.temperature=.inf",), "temperature"),
        (("sampling.temperature=nan",), "temperature"),
        (("sampling.temperature=-1",), "temperature"),
        (("sampling.guidance=.nan",), "guidance"),
        (("sampling.guidance=.inf",), "guidance"),
        (("sampling.guidance=1e38",), "guidance"),
        (("sampling.guidance_power=inf",), "guidance_power"),
        (("sampling.top_k=-1",), "top_k"),
        (("sampling.top_p=0",), "top_p"),
        (("sampling.top_p=.nan",), "top_p"),
        (("--length", 0), "length=0: expected"),
        (("--class", "\u00b2"), "expected one of cat, dog or 0..1"),
        (("--class", 2), "expected one of cat, dog or 0..1"),
        (("--out", "image"), "image: no image by its name; expected a suffix"),
        (("--out", "x.xyz"), "x.xyz: no image by its name"),
        (("--out", "tok/config.json/x.png"), "tok/config.json: cannot be written"),
        (("--out", "folder.png"), "folder.png: is a folder"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_sampling(models, monkeypatch, words, said):
    def never(*args, **options):
        raise AssertionError("it sampled")

    monkeypatch.setattr(Generator, "sample", never)
    (models / "folder.png").mkdir()
    assert said in mistake("generate", "gen", *words)


def test_folders_of_the_output_are_made(models):
    call("generate", "gen", "--count", 1, "--out", "new/er/x.jpg")
    with Image.open("new/er/x.jpg") as made:
        assert made.format == "JPEG"
    assert "new/er/x.jpg: exists already; give --overwrite" in mistake(
        "generate", "gen", "--out", "new/er/x.jpg"
    )


def test_a_tokenizer_of_another_spec_is_refused(models, make_tokenizer):
    make_tokenizer("vq").save_pretrained("other")
    described = json.loads(Path("gen/config.json").read_text())
    Path("gen/config.json").write_text(json.dumps(described | {"tokenizer": {}}))
    assert "it does not say whose tokens it learned" in mistake("generate", "gen")
    assert "other: its tokens are blocks 4 of vocabulary 12" in mistake("generate", "gen", "other")
    call("generate", "gen", "tok", "--count", 1)  # no record to compare: its word is taken


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"class_names": "catdog"}, "class_names='catdog': expected a list of texts"),
        ({"class_names": ["cat"]}, "1 class_names for condition.classes=2"),
        ({"class_names": [1, 2]}, "class_names"),
        ({"tokenizer": "tok"}, "tokenizer"),
        ({"tokenizer": {"name": 7}}, "tokenizer"),
        ({"tokenizer": {"name": ["tok"], "sha256": "0"}}, "tokenizer"),
    ],
)
def test_a_damaged_record_of_a_generator_is_one_line(models, change, said):
    described = json.loads(Path("gen/config.json").read_text())
    Path("gen/config.json").write_text(json.dumps(described | change))
    for command in (("info", "gen"), ("generate", "gen")):
        text = mistake(*command)
        assert "gen/config.json" in text and said in text


def test_a_name_of_two_classes_is_ambiguous(models):
    described = json.loads(Path("gen/config.json").read_text())
    Path("gen/config.json").write_text(json.dumps(described | {"class_names": ["crane"] * 2}))
    said = mistake("generate", "gen", "--class", "crane")
    assert "--class crane: classes 0 and 1 have this name; give the number" in said
    call("generate", "gen", "--class", "1", "--count", 1)


def test_names_of_a_download_do_not_reach_the_terminal_raw(models):
    described = json.loads(Path("gen/config.json").read_text())
    names = ["\x1b[2Jcat\x07", "d\u202eog\r\n"]
    Path("gen/config.json").write_text(json.dumps(described | {"class_names": names}))
    assert r"\x1b[2Jcat\x07, d\u202eog\r\n" in call("info", "gen")
    assert r"\x1b[2Jcat\x07, d\u202eog" in mistake("generate", "gen", "--class", "cow")


def test_info_of_a_generator(models):
    text = call("info", "gen")
    for part in ("autoregressive", "cat, dog", "sampling.temperature=1.0", "tok"):
        assert part in text
