"""The `vistok` command: what it prints, and that mistakes are one line."""

from __future__ import annotations

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
def picture(tmp_path):
    Image.new("RGB", (30, 20), (250, 10, 90)).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def test_info_says_what_a_model_is(model):
    text = call("info", model)
    for part in ("tokens/image", "bits/image", "vocabulary", "encoder parameters"):
        assert part in text


def test_a_picture_goes_to_bytes_and_back(model, picture, tmp_path):
    call("encode", model, picture, "--out", tmp_path / "codes")
    call("decode", model, tmp_path / "codes/picture.tok", "--out", tmp_path / "back")
    size = Image.open(tmp_path / "back/picture.png").size
    from vistok.tokenizer import Tokenizer

    assert size == Tokenizer.from_pretrained(model).config.image_size[::-1]


def test_mistakes_are_one_line(model, picture, tmp_path):
    assert "no model.safetensors" in mistake("info", tmp_path / "nowhere")
    assert "length=99" in mistake("encode", model, picture, "--length", 99, "--out", tmp_path)
    (tmp_path / "text.jpg").write_text("no picture")
    assert "text.jpg" in mistake("encode", model, tmp_path / "text.jpg", "--out", tmp_path)
    (tmp_path / "torn.tok").write_bytes(b"\x10")
    assert "torn.tok" in mistake("decode", model, tmp_path / "torn.tok", "--out", tmp_path)
    assert "not a generator" in mistake("generate", model, model)
    assert "missing.tok" in mistake("decode", model, tmp_path / "missing.tok", "--out", tmp_path)
