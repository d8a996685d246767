"""Fixtures that train tiny runs in this process."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from tests.support.training import TINY, cache_tree, count_no_flop, forget_accelerate


@pytest.fixture
def run(tmp_path):
    """run(tree, folder, **overrides) trains in this process; the run's folder. With counted=True
    it counts the FLOP of its step."""
    from vistok.config import validate
    from vistok.train.config import TrainConfig
    from vistok.train.loop import train

    def go(tree: dict, folder: str = "run", counted: bool = False, **overrides) -> Path:
        forget_accelerate()
        tree = {**copy.deepcopy(tree), "out": str(tmp_path / folder), **overrides}
        with pytest.MonkeyPatch.context() as patch:
            if not counted:
                count_no_flop(patch)
            return train(validate(TrainConfig, tree))

    return go


@pytest.fixture
def write(tmp_path):
    """write(tree) -> path of a YAML file."""

    def go(tree: dict, name: str = "config.yaml") -> Path:
        path = tmp_path / name
        path.write_text(yaml.safe_dump(tree))
        return path

    return go


@pytest.fixture
def cached(run):
    """(tokenizer run, cache folder)."""
    tokenizer = run(TINY, "tokenizer", steps=4)
    return tokenizer, run(cache_tree(tokenizer), "tokens")
