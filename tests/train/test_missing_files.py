"""A file that is missing, or goes missing, never costs a run its checkpoints or its model."""

from __future__ import annotations

import copy
import json
import os

import numpy as np
import pytest
from PIL import Image

from tests.support.training import TINY, lines
from vistok.config import ConfigError
from vistok.train.checkpoint import files
from vistok.train.loop import Loop


@pytest.fixture
def images(tmp_path):
    """Twenty images and a dead link in two classes, a pipe, and two more images to validate on."""
    rng = np.random.default_rng(0)
    for number in range(22):
        part = "set" if number < 20 else "val"
        path = tmp_path / part / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    (tmp_path / "set" / "a" / "dead.png").symlink_to("../.git/annex/objects/nowhere.png")
    os.mkfifo(tmp_path / "set" / "b" / "pipe.png")
    return tmp_path / "set"


def tree(images, **options) -> dict:
    data = {"kind": "folder", "path": str(images), "val_path": str(images.parent / "val")}
    return {**copy.deepcopy(TINY), "data": {**data, "size": 32}, "steps": 6, "save_every": 3}


def quarantined(run) -> dict[str, str]:
    rows = [json.loads(line) for line in (run / "quarantine.jsonl").read_text().splitlines()]
    assert len(rows) == len({row["name"] for row in rows})
    return {row["name"]: row["reason"] for row in rows}


def test_dead_links_and_pipes_are_quarantined(run, images):
    folder = run(tree(images))
    bad = quarantined(folder)
    assert set(bad) == {"a/dead.png", "b/pipe.png"}
    assert "No such file" in bad["a/dead.png"] and "a named pipe" in bad["b/pipe.png"]
    assert [path.name for path in files.complete(folder / "checkpoints")] == [
        "step_00000006", "step_00000003",
    ]  # fmt: skip
    assert (folder / "model" / "model.safetensors").is_file()
    again = run(tree(images), steps=8)  # the same files are missing: the same data
    assert len(lines(again)) == 8


def test_a_file_that_is_deleted_during_a_run(run, images, monkeypatch):
    image, train_step = images / "b" / "1.png", Loop._train_step

    def delete(loop, batch, loader):
        if loop.state.step == 1:
            image.unlink()
        return train_step(loop, batch, loader)

    monkeypatch.setattr(Loop, "_train_step", delete)
    folder = run(tree(images))
    assert not image.exists() and len(lines(folder)) == 6
    assert quarantined(folder)["b/1.png"].startswith("cannot be read (No such file")
    assert len(files.complete(folder / "checkpoints")) == 2
    assert (folder / "model" / "model.safetensors").is_file()
    with pytest.raises(ConfigError, match=r"data \(count\).*with 22.*says 21"):
        run(tree(images), steps=8)
