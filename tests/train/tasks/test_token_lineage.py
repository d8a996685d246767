"""Training refuses tokens of another tokenizer: validation tokens, a generator to start from, code
vectors, and a checkpoint to resume from."""

from __future__ import annotations

import pytest
import torch

from vistok.config import ConfigError, validate
from vistok.config.registry import build
from vistok.data import CachedTokensConfig, DataError, TokenCacheWriter
from vistok.generators.autoregressive import Autoregressive, AutoregressiveConfig
from vistok.tokens import Tokens, TokenSpec
from vistok.train.tasks.generator import GeneratorTask, GeneratorTaskConfig

SPEC = TokenSpec(blocks=((4,),), vocab=(16,))
ONE, OTHER = "1" * 64, "2" * 64
TRUNK = {"transformer": {"width": 16, "depth": 1, "heads": 2}}


@pytest.fixture
def cache(tmp_path):
    """cache(name, sha256, tokenizer) -> a data set of eight samples."""

    def write(name: str, sha256: str, tokenizer: str = "tok", **facts: str):
        facts = {"source": {}, "tokenizer": tokenizer, "sha256": sha256, **facts}
        with TokenCacheWriter(tmp_path / name, SPEC, 8, **facts) as writer:
            writer.write(Tokens.of(SPEC, torch.arange(32).view(8, 4, 1) % 16))
        return build(CachedTokensConfig(path=str(tmp_path / name))).open("train")

    return write


@pytest.fixture
def begun(tmp_path):
    """begun(record) -> folder of a saved generator of that tokenizer."""

    def save(record: dict[str, str]) -> str:
        model = Autoregressive(validate(AutoregressiveConfig, TRUNK), SPEC)
        model.tokenizer = record
        model.save_pretrained(tmp_path / "begun")
        return str(tmp_path / "begun")

    return save


def task(data, init: str | None = None) -> GeneratorTask:
    tree = {"generator": {"kind": "autoregressive", **TRUNK}, "init": init}
    return GeneratorTask(validate(GeneratorTaskConfig, tree), data)


def test_validation_tokens_are_of_the_same_weights(cache, tmp_path, fails):
    cache("train", ONE), cache("val", OTHER), cache("same", ONE, "moved")
    paths = {"path": str(tmp_path / "train"), "val_path": str(tmp_path / "val")}
    with fails(DataError, "val: made by another tokenizer .*cache both with the same weights"):
        build(CachedTokensConfig(**paths)).open("val")
    paths["val_path"] = str(tmp_path / "same")  # another name of the same weights
    assert len(build(CachedTokensConfig(**paths)).open("val")) == 8


@pytest.mark.parametrize(
    ("record", "refused"),
    [
        ({"name": "tok", "sha256": ONE}, None),
        ({"name": "elsewhere", "sha256": ONE}, None),
        ({"name": "tok", "sha256": ""}, None),  # a release names no weights, and cached by it
        ({}, None),  # nothing is known of it
        ({"name": "old", "sha256": OTHER}, "other weights: sha256 111111111111, not 222222222222"),
        ({"name": "rar-b", "sha256": ""}, "other weights than those released as rar-b"),
        ({"name": "old", "sha256": OTHER, "codes_sha256": ONE}, None),  # another decoder alone
    ],
)
def test_a_generator_to_start_from_learned_the_same_tokens(cache, begun, fails, record, refused):
    data, folder = cache("train", ONE, codes_sha256=ONE), begun(record)
    if refused is None:
        started = task(data, folder).generator
        assert started.tokenizer["sha256"] == ONE
        return
    with fails(ConfigError, f"task.init: {folder} learned tokens of .*{refused}; start from"):
        task(data, folder)


def test_a_checkpoint_is_tied_to_the_tokenizer_of_its_tokens(cache):
    """Resuming compares the manifest of the data (train/checkpoint/resume.py)."""
    one, other = (cache(name, name * 64).record() for name in ("1", "2"))
    assert one["manifest"] != other["manifest"]
    assert one["tokenizer"]["sha256"] == ONE
