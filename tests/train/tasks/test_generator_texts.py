"""From texts of the data to a cache, a generator that reads it, its samples and their gFID."""

from __future__ import annotations

import shutil

import pytest
import torch
from click.testing import CliRunner

from tests.support import tiny_text
from tests.support.training import TINY
from vistok.cli import main
from vistok.config import ConfigError, validate
from vistok.data import TokenCache
from vistok.frozen.text import TextEncoder, TextEncoderConfig
from vistok.generators import load_generator
from vistok.tokenizer import Tokenizer, TokenizerConfig

POOLED, LENGTH = 5, tiny_text.LENGTH
DATA = {**TINY["data"], "caption": "a {class}.", "val_count": 4}


@pytest.fixture
def clip(tmp_path):
    return tiny_text.clip(tmp_path / "clip", projection=POOLED)


@pytest.fixture
def text(clip):
    """The text encoder as MaskGen reads it."""
    named = {"path": clip, "layer": "penultimate", "pooled": "projected"}
    return {"network": "clip", "length": LENGTH, "pad_id": 0, **named}


@pytest.fixture
def cache(run, tmp_path):
    """cache(text) -> the folder of the cached tokens of a tokenizer that reads no text."""

    def make(text):
        config = validate(TokenizerConfig, TINY["task"]["tokenizer"])
        Tokenizer(config).save_pretrained(tmp_path / "tokenizer")
        task = {"kind": "cache", "tokenizer": str(tmp_path / "tokenizer"), "limit": 16}
        return run({**TINY, "task": task | {"text": text}, "data": DATA}, "tokens")

    return make


def generator_tree(folder) -> dict:
    task = {
        "kind": "generator",
        "generator": {
            "kind": "masked",
            "trunk": {"kind": "mmdit", "width": 16, "depth": 2, "heads": 2},
            "tied": True,
            "condition": {
                "classes": 0,
                "text": {"dim": tiny_text.WIDTH, "length": LENGTH},
                "pooled": POOLED,
                "score": {"channels": 6},
                "dropout": 0.5,
            },
            "sampling": {"steps": 2, "guidance": 3.0},
        },
    }
    data = {"kind": "tokens", "path": f"{folder}/train", "val_path": f"{folder}/val"}
    return {**TINY, "task": task, "data": data, "steps": 3}


def call(*words) -> str:
    return CliRunner().invoke(main, [str(word) for word in words]).output


def test_from_texts_to_samples(run, text, cache, tmp_path, fails):
    tokens = cache(text)
    encoder = TextEncoder(validate(TextEncoderConfig, text))
    expected, empty = encoder.condition(["a camera."]), encoder.condition([""])
    one = TokenCache(tokens / "train")
    assert one.meta["source"]["text_encoder"] == encoder.record()
    assert one.condition(0).pooled.shape == (POOLED,)
    assert torch.equal(one.empty_text().text, empty.text)
    assert torch.equal(one.empty_text().pooled, empty.pooled)

    folder = run(generator_tree(tokens), "generator")
    model = load_generator(folder / "model")
    assert model.text_record == encoder.record() and model.knows_empty
    assert torch.equal(model.condition.empty, empty.text[0])
    found = model.text_condition(["a camera."])
    assert torch.equal(found.text, expected.text) and torch.equal(found.pooled, expected.pooled)

    # The same samples by the command, by the library, and in batches of any size.
    index = torch.arange(4)
    given = found.select([0, 0]).select([0, 1, 1, 0])
    whole = model.sample(given, index=index, seed=3)
    parts = [model.sample(given.select(r), index=index[r], seed=3) for r in ([0], [1, 2, 3])]
    assert torch.equal(whole.indices, torch.cat([part.indices for part in parts]))
    (tmp_path / "texts.txt").write_text("a camera.\n\nab\n", encoding="utf-8")
    out = tmp_path / "made.png"
    words = ["generate", folder, "--count", 2, "--out", out]
    assert "made.png" in call(*words, "--texts", tmp_path / "texts.txt", "--text", "z")

    # The encoder has moved, or is another one.
    moved = shutil.move(text["path"], tmp_path / "moved")
    assert "not available" in call(*words, "--text", "z", "--overwrite")
    at = [*words, "--text", "z", "--overwrite"]
    assert "made.png" in call(*at, f"text.path={moved}")
    other = tiny_text.clip(tmp_path / "other", projection=POOLED, seed=1)
    said = call(*at, f"text.path={other}")
    assert "this generator was trained with" in " ".join(said.split()) and said.count("\n") == 1
    changed = {**text, "path": str(moved), "layer": "last"}
    with fails(ConfigError, "text.layer=last: .* trained with layer=penultimate"):
        model.use_text_encoder(TextEncoder(validate(TextEncoderConfig, changed)))
    (tmp_path / "texts.txt").write_text("\n", encoding="utf-8")
    assert "no text in it" in call(*words, "--texts", tmp_path / "texts.txt")


def test_what_is_missing_is_one_line(run, text, cache, clip, fails):
    with fails(ConfigError, "task.text=true: the tokenizer .* has no text encoder"):
        cache(True)
    tokens = cache({**text, "pooled": None})
    with fails(ConfigError, "condition.pooled: .* text.pooled"):
        run(generator_tree(tokens), "generator")
