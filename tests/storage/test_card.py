"""Model cards: complete, kept through opening and saving, and somebody else's never replaced."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from huggingface_hub import ModelCard

from tests.support.generators import made, spec_for
from vistok.config import UserError
from vistok.storage.weights import sha256
from vistok.tokenizer import Tokenizer


@pytest.fixture
def folder(make_tokenizer, tmp_path):
    tokenizer = make_tokenizer("vq")
    tokenizer.notes = {"data": "photos: seven | photographs", "run": "mine", "steps": "1,700"}
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_card_says_what_the_model_is(folder):
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "vistok"
    assert card.data.tags == ["image-tokenizer", "vistok", "vit", "vq"]
    for words in (
        "# mine\n",
        "8 x 8 pixels become 4 tokens (16 bits) and back; shorter prefixes decode, too.",
        'Tokenizer.from_pretrained("path/of/this/folder")',
        "| lengths | 1 to 4 tokens |",
        "License of the weights: not stated",
        "Trained on: photos: seven | photographs.",
        "Training run: mine, 1,700 steps.",
        "@software{vistok,",
    ):
        assert words in card.text, words
    assert "Needed" not in card.text


def test_the_lines_of_python_run(folder, tmp_path, monkeypatch):
    from PIL import Image

    card = (folder / "README.md").read_text(encoding="utf-8")
    lines = card.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (9, 9)).save("cat.jpg")
    scope: dict = {}
    exec(lines.replace("path/of/this/folder", str(folder)), scope)
    assert scope["images"][0].size == (8, 8)


def test_notes_of_training_are_kept(folder, tmp_path):
    again = Tokenizer.from_pretrained(folder)
    assert again.notes["data"].startswith("photos") and again.notes["steps"] == "1,700"
    again.save_pretrained(tmp_path / "other")
    assert (tmp_path / "other/README.md").read_text(encoding="utf-8") == (
        folder / "README.md"
    ).read_text(encoding="utf-8")


def test_cards_of_others_stay(folder, make_tokenizer):
    path, tokenizer = folder / "README.md", make_tokenizer("fsq")
    tokenizer.save_pretrained(folder)  # another model in the same place
    assert "# A vistok image tokenizer" in path.read_text(encoding="utf-8")
    path.write_text("---\nlicense: mit\n---\nMy own words.\n", encoding="utf-8")
    tokenizer.save_pretrained(folder)
    assert path.read_text(encoding="utf-8").endswith("My own words.\n")
    assert Tokenizer.from_pretrained(folder).notes == {}
    path.write_text("---\n: [\nvistok: {\n---\n", encoding="utf-8")  # a header that nobody can read
    assert Tokenizer.from_pretrained(folder).notes == {}


def test_measured_numbers(folder, tmp_path, fails):
    digest = sha256(folder / "model.safetensors")
    row = {"weights": {"tokenizer": digest}, "count": 64, "precision": "fp32", "commit": "abc",
           "date": "2026-11-27T16", "reference": {"name": "photos", "split": "val"}}  # fmt: skip
    rows = [
        {**row, "display": "PSNR", "value": 21.25, "length": 2},
        {**row, "display": "PSNR", "value": 24.5, "length": None},
        {**row, "display": "rFID[a|b]", "value": 3.0, "length": None},
        {**row, "display": "PSNR", "value": 1, "length": None, "weights": {"tokenizer": "other"}},
    ]
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"rows": rows}), encoding="utf-8")
    tokenizer = Tokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(folder, results=path)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "| tokens | 2 | whole |" in card and "| PSNR | 21.25 | 24.5 |" in card
    assert r"| rFID[a\|b] |  | 3 |" in card
    assert "64 samples; photos, val; precision fp32; commit abc, 2026-11-27." in card
    for data, words in (({"rows": rows[3:]}, "no numbers of these weights"), ([], "holds no rows")):
        path.write_text(json.dumps(data), encoding="utf-8")
        with fails(UserError, words):
            tokenizer.save_pretrained(folder, results=path)


def test_generators_and_licenses(tmp_path):
    generator = made("autoregressive", spec_for("autoregressive"))
    generator.origin = SimpleNamespace(family="rar", release="rar-b", license="MIT", save=id)
    text = str(generator.generate_model_card(name="hf:me/rar"))
    assert "license: mit" in text and "# rar-b" in text and "Needed" not in text
    assert 'Generator.from_pretrained("hf:me/rar")' in text
    assert "official weights of the family rar, released as rar-b" in text
