"""The `vistok` command: what it prints, and that mistakes are one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from vistok.cli import main


def call(*args: object) -> str:
    result = CliRunner().invoke(main, [str(a) for a in args])
    assert result.exit_code == 0, result.output
    return result.output


def mistake(*args: object) -> str:
    result = CliRunner().invoke(main, [str(a) for a in args])
    text = result.stderr.strip()
    assert result.exit_code == 1 and text.startswith("error: ") and "\n" not in text, text
    return text


@pytest.fixture
def model(make_tokenizer, tmp_path):
    make_tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def image(tmp_path):
    Image.new("RGB", (30, 20), (250, 10, 90)).save(tmp_path / "image.png")
    return tmp_path / "image.png"


def test_info_says_what_a_model_is(model):
    text = call("info", model)
    for part in ("tokens/image", "bits/image", "vocabulary", "encoder parameters"):
        assert part in text


def test_an_image_goes_to_bytes_and_back(model, image, tmp_path):
    call("encode", model, image, "--out", tmp_path / "codes")
    call("decode", model, tmp_path / "codes/image.vtk", "--out", tmp_path / "back")
    size = Image.open(tmp_path / "back/image.png").size
    from vistok.tokenizer import Tokenizer

    assert size == Tokenizer.from_pretrained(model).config.image_size[::-1]


def test_tokens_are_decoded_to_the_size_that_is_asked_for(model, image, tmp_path):
    from tests.support.recipes import TINY, read_config
    from vistok.tokenizer import Tokenizer

    bits = tmp_path / "bits"
    Tokenizer(read_config(TINY["instella"]).task.tokenizer).save_pretrained(bits)
    for name in (model, bits):
        call("encode", name, image, "--out", tmp_path / name.name / "codes")
    (codes,) = (bits / "codes").iterdir()
    for size, sides in (("48", (48, 48)), ("40x64", (64, 40))):
        call("decode", bits, codes, "--size", size, "--out", tmp_path / size)
        assert Image.open(tmp_path / size / "image.png").size == sides
    for size in ("0", "4x", "64 x 64", "axb", "1x2x3"):
        assert "expected pixels of a side" in mistake("decode", bits, codes, "--size", size)
    assert "sides=(50, 50) are no multiples of 8" in mistake("decode", bits, codes, "--size", "50")
    (codes,) = (model / "codes").iterdir()
    assert "this tokenizer decodes to" in mistake("decode", model, codes, "--size", "64")


def test_mistakes_are_one_line(model, image, tmp_path):
    assert "no such file or folder" in mistake("info", tmp_path / "nowhere")
    assert "length=99" in mistake("encode", model, image, "--length", 99, "--out", tmp_path)
    (tmp_path / "text.jpg").write_text("no image")
    assert "text.jpg" in mistake("encode", model, tmp_path / "text.jpg", "--out", tmp_path)
    (tmp_path / "torn.vtk").write_bytes(b"\x10")
    assert "torn.vtk" in mistake("decode", model, tmp_path / "torn.vtk", "--out", tmp_path)
    assert "not a generator" in mistake("generate", model, model)
    assert "missing.vtk" in mistake("decode", model, tmp_path / "missing.vtk", "--out", tmp_path)


def reading(tree, folder, encoder: bool, optional: bool):
    """A saved tokenizer whose decoder (and encoder) reads text."""
    from tests.support import tiny_text
    from vistok.config import validate
    from vistok.tokenizer import Tokenizer, TokenizerConfig

    config = tree()
    config["text"] = {"path": tiny_text.clip(folder / "clip"), "length": tiny_text.LENGTH}
    text = {"dim": tiny_text.WIDTH, "length": tiny_text.LENGTH, "optional": optional}
    for part in ("encoder", "decoder") if encoder else ("decoder",):
        config[part]["text"] = text
    Tokenizer(validate(TokenizerConfig, config)).save_pretrained(folder / "model")
    return folder / "model"


def test_text_goes_to_the_parts_that_read_it(tree, image, tmp_path):
    model, out = reading(tree, tmp_path, encoder=False, optional=False), tmp_path / "out"
    call("encode", model, image, "--out", out)  # codes do not depend on a text
    assert "encoder reads no text; its decoder does" in mistake(
        "encode", model, image, "--out", out, "--text", "a cat"
    )
    code = out / "image.vtk"
    assert "reads text: say what the image shows, --text" in mistake("decode", model, code)
    decoded = []
    for text in ("a cat", "", "a cat"):
        call("decode", model, code, "--out", out, "--text", text, "--overwrite")
        decoded.append(Image.open(out / "image.png").tobytes())
    assert decoded[0] == decoded[2] != decoded[1]
    edited = tmp_path / "edited.png"
    copy = ("edit", "copy", model, image, image, "--positions", "0", "--out", edited, "--overwrite")
    assert "--text" in mistake(*copy)
    call(*copy, "--text", "a cat")
    assert Image.open(edited).tobytes() == decoded[0]
    for verb in ("match", "inpaint"):
        work = ("edit", verb, model, image, image, "--steps", 2, "--out", edited, "--overwrite")
        assert "--text" in mistake(*work)
        assert "loss" in call(*work, "--text", "a cat")


def test_text_that_may_be_missing(tree, model, image, tmp_path):
    reader = reading(tree, tmp_path / "reader", encoder=True, optional=True)
    codes = []
    for text in ((), ("--text", "a cat"), ("--text", "zzzz")):
        call("encode", reader, image, "--out", tmp_path, *text, "--overwrite")
        codes.append((tmp_path / "image.vtk").read_bytes())
        call("decode", reader, tmp_path / "image.vtk", "--out", tmp_path, *text, "--overwrite")
    assert len(set(codes)) > 1
    assert "reads no text: leave it out" in mistake("encode", model, image, "--text", "x")


def test_another_text_encoder_than_the_one_trained_with_is_refused(tree, image, tmp_path):
    from tests.support import tiny_text
    from vistok.tokenizer import Tokenizer

    reader = reading(tree, tmp_path, encoder=True, optional=True)
    model = Tokenizer.from_pretrained(reader)
    model.condition(["a cat"])
    assert len(model.frozen_record()["text_encoder"]) == 64
    model.save_pretrained(reader)
    call("encode", reader, image, "--out", tmp_path, "--text", "a cat")
    tiny_text.clip(tmp_path / "clip", seed=1)
    said = mistake("encode", reader, image, "--out", tmp_path, "--text", "a cat")
    assert "text.path" in said and "use the same text encoder" in said


def test_own_parts_are_named_on_any_command(tree, image, tmp_path, monkeypatch):
    from vistok.config import plugin_words, validate
    from vistok.tokenizer import Tokenizer, TokenizerConfig

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    config = tree() | {"quantizer": {"kind": "fsq", "levels": [4, 4]}}
    Tokenizer(validate(TokenizerConfig, config)).save_pretrained("model")
    saved = Path("model/config.json")
    saved.write_text(saved.read_text().replace('"kind": "fsq"', '"kind": "my_fsq"'))
    Path("my_parts.py").write_text(
        "from typing import Literal\n"
        "from vistok.config.registry import register\n"
        "from vistok.quantizers.atoms.fsq import FSQ, FSQConfig\n"
        "class MineConfig(FSQConfig):\n"
        "    kind: Literal['my_fsq'] = 'my_fsq'\n"
        "register('quantizer', MineConfig)(type('Mine', (FSQ,), {}))\n"
    )
    assert "my_fsq" in mistake("info", "model")
    assert "quantizer                my_fsq" in call("info", "model", "plugins=my_parts")
    assert plugin_words() == ["plugins=my_parts"]  # for the trainings that a study starts
    call("encode", "model", image, "plugins=my_parts")
    assert "cannot import 'no_parts'" in mistake("info", "model", "plugins=no_parts")
