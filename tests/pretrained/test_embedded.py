"""The tokenizer inside the wheel: opens by name, stays small, keeps the quality its card states."""

import re

import pytest
import skimage.data
import torch
from PIL import Image

from vistok import Tokenizer, pretrained
from vistok.config import UserError
from vistok.pretrained.embedded import EMBEDDED
from vistok.storage.weights import sha256

FOLDER = EMBEDDED["vistok-128"]
HELD_OUT = ("astronaut", "chelsea", "coffee")  # of which training saw nothing


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_pretrained("vistok-128")


def test_its_card_is_about_this_file():
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    weights = FOLDER / "model.safetensors"
    assert sha256(weights) in card and f"{weights.stat().st_size:,} bytes" in card
    assert weights.stat().st_size <= 8_000_000
    assert "Needed" not in card and "ImageNet" in card


def test_it_is_what_its_card_says(tokenizer):
    spec = tokenizer.spec()
    assert (spec.length, spec.vocab, spec.bits) == (256, (64000,), pytest.approx(4096, abs=256))
    assert spec.prefix == "token" and tokenizer.shape.sides == (128, 128)
    assert all(p.dtype == torch.float32 for p in tokenizer.parameters())
    assert "research" in tokenizer.config.license


def test_more_tokens_are_more_image(tokenizer):
    images = [Image.fromarray(getattr(skimage.data, name)()) for name in HELD_OUT]
    pixels = tokenizer.preprocess(images)
    assert pixels.shape == (3, 3, 128, 128)
    tokens = tokenizer.encode(pixels)
    quality = []
    for length in (1, 16, 32, 64, 128, 256):
        made = tokenizer.decode(tokens.prefix(length))
        quality.append(-10 * (made - pixels).square().mean().log10().item())
    assert quality == sorted(quality)
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    stated = re.search(r"astronaut, cat and coffee[^\n]*?([0-9.]+) dB", card)
    assert quality[-1] == pytest.approx(float(stated[1]), abs=0.05)


def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    (tmp_path / "vistok-128").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"vistok-128: no model\.safetensors"):
        pretrained.open("vistok-128")


def test_a_slip_of_its_name_names_it():
    with pytest.raises(UserError, match="did you mean 'vistok-128'"):
        pretrained.open("vistok128")
