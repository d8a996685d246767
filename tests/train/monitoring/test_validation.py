"""Validation and grids come after the save, and cost neither a step nor the run."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from tests.support.training import TINY, alarms, lines
from vistok.data.base import BadSample
from vistok.train.checkpoint import files as checkpoint
from vistok.train.tasks.tokenizer import TokenizerTask

TREE = {**TINY, "steps": 8, "save_every": 4, "validate_every": 4, "grid_every": 4}


def saved(folder) -> list[int]:
    return [checkpoint.step_of(path) for path in checkpoint.complete(folder / "checkpoints")]


def score(folder, step: int) -> float | None:
    manifest = folder / f"checkpoints/step_{step:08d}/manifest.json"
    return json.loads(manifest.read_text())["score"]


@pytest.fixture
def images(tmp_path):
    """images(good, broken, split): a folder of images, some of which are no images."""

    def make(good: int, broken: int, split: str):
        place = tmp_path / "images" / split / "a"
        place.mkdir(parents=True)
        torch.manual_seed(0)
        for i in range(good):
            pixels = torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(place / f"{i}.png")
        for i in range(broken):
            (place / f"{i}_broken.png").write_bytes(b"no image")
        return str(place.parent)

    return make


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_validation_images_are_left_out_counted_and_named(run, images, capsys, workers):
    data = {"kind": "folder", "path": images(8, 0, "train"), "size": 32}
    tree = {**TREE, "data": data, "steps": 4, "validate_batch": 3, "workers": workers}
    clean = run({**tree, "data": {**data, "val_path": images(7, 0, "clean")}}, "clean")
    capsys.readouterr()
    folder = run({**tree, "data": {**data, "val_path": images(7, 2, "broken")}})
    said = capsys.readouterr().out
    assert "step 4: 2 of 9 validation samples cannot be used and are left out: " in said
    (row,), (right,) = lines(folder, "val"), lines(clean, "val")
    assert row.pop("left_out") == 2 and row == pytest.approx(right)  # of the seven good ones
    named = [json.loads(x) for x in (folder / "quarantine.jsonl").read_text().splitlines()]
    assert sorted(one["name"].rpartition("/")[2] for one in named) == [
        "0_broken.png",
        "1_broken.png",
    ]
    assert all(one["reason"] for one in named)
    assert (folder / "model/model.safetensors").is_file()
    assert (folder / "images/reconstructions_00000004.png").is_file()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["bad_samples"] == 2 and summary["validation"]["left_out"] == 2


def test_a_validation_without_one_good_image_costs_nothing(run, images):
    data = {"kind": "folder", "path": images(8, 0, "train"), "size": 32}
    folder = run({**TREE, "data": {**data, "val_path": images(0, 2, "val")}, "steps": 4})
    assert saved(folder) == [4] and lines(folder, "val") == []
    assert [a["alarm"] for a in alarms(folder)] == ["validation failed"]
    assert "no sample can be used" in alarms(folder)[0]["text"]


@pytest.mark.parametrize("error", [BadSample("x.png", "gone"), RuntimeError("boom")])
def test_failing_looks_are_said_and_training_goes_on(run, monkeypatch, capsys, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(TokenizerTask, "validate", fail)
    monkeypatch.setattr(TokenizerTask, "_images", fail)
    folder = run({**TREE, "keep_best": 1})
    assert saved(folder) == [8, 4] and score(folder, 8) is None
    assert [(a["step"], a["alarm"]) for a in alarms(folder)] == [
        (step, what) for step in (4, 8) for what in ("validation failed", "grid failed")
    ]
    said = capsys.readouterr().out
    is_bug = isinstance(error, RuntimeError)
    assert ("internal error: RuntimeError: boom" in said) == is_bug
    assert said.count("training goes on") == 4 and "Traceback" not in said
    warnings = json.loads((folder / "summary.json").read_text())["warnings"]
    ends = [warning.split(" (")[0] for warning in warnings[-2:]]
    assert ends == ["step 8: validation failed", "step 8: grid failed"]
    assert all(warning.endswith("(2 times in all)") for warning in warnings[-2:])
    before = (folder / "alarms.jsonl").read_bytes()
    run({**TREE, "keep_best": 1})  # it is not tried for ever
    assert (folder / "alarms.jsonl").read_bytes() == before


def test_reading_that_fails_in_the_middle_is_no_number_over_fewer_images(run, monkeypatch):
    from vistok.data.loading.loader import EvalLoader

    whole = EvalLoader.__iter__

    def cut(self):
        yield next(whole(self))
        raise OSError(5, "the disk is gone")

    monkeypatch.setattr(EvalLoader, "__iter__", cut)
    folder = run({**TREE, "steps": 4, "validate_batch": 4})
    assert lines(folder, "val") == []
    assert "validation failed (the disk is gone)" in alarms(folder)[0]["text"]


def test_the_checkpoint_is_there_before_anybody_looks(run, monkeypatch):
    seen, real, root = [], TokenizerTask.validate, []

    def look(self, batches, modules):
        seen.append([path.name for path in sorted(root[0].glob("step_*"))])
        return real(self, batches, modules)

    monkeypatch.setattr(TokenizerTask, "validate", look)
    from vistok.train.loop import Loop

    begin = Loop._begin
    monkeypatch.setattr(
        Loop, "_begin", lambda self: (root.append(self.checkpointer.folder), begin(self))[1]
    )
    run(TREE)
    assert seen == [["step_00000004"], ["step_00000004", "step_00000008"]]


@pytest.mark.parametrize("step", [4, 8])
def test_a_validation_that_a_kill_cut_off_is_made_up_for(run, monkeypatch, step):
    tree = {**TREE, "keep_best": 1, "keep_last": 1}
    whole = run(tree, "whole")
    real, calls = TokenizerTask.validate, []

    def killed(self, batches, modules):
        calls.append(1)
        if len(calls) == step // 4:
            raise KeyboardInterrupt
        return real(self, batches, modules)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TokenizerTask, "validate", killed)
        run(tree)
    folder = run(tree)
    assert lines(folder, "val") == lines(whole, "val")
    assert [row["step"] for row in lines(folder)] == list(range(1, 9))
    assert saved(folder) == saved(whole)
    for path in checkpoint.complete(whole / "checkpoints"):
        for file in path.iterdir():  # scores too
            assert (
                folder / "checkpoints" / path.name / file.name
            ).read_bytes() == file.read_bytes()
    names = {path.name for path in (whole / "images").iterdir()}
    assert names == {path.name for path in (folder / "images").iterdir()}
