"""Checkpoints: whole or not at all, damage found and named, no code in them."""

from __future__ import annotations

import pytest
import torch

from tests.train.conftest import TINY, lines
from train import checkpoint
from train.checkpoint import CheckpointError, State
from vistok.config import ConfigError


def write(folder, step, keep=5):
    state = State(step, {"model": {"w": torch.arange(4.0) + step}}, {"note": "x"})
    return checkpoint.save(folder, state, keep)


def test_what_is_saved_is_loaded(tmp_path):
    state = checkpoint.load(write(tmp_path, 7))
    assert state.step == 7 and state.facts["note"] == "x"
    assert torch.equal(state.tensors["model"]["w"], torch.arange(4.0) + 7)


def test_only_the_last_are_kept(tmp_path):
    for step in (1, 2, 3, 4):
        write(tmp_path, step, keep=2)
    assert [path.name for path in checkpoint.complete(tmp_path)] == [
        "step_00000004",
        "step_00000003",
    ]


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone"])
def test_damage_is_named_and_the_older_one_is_used(tmp_path, name, damage):
    write(tmp_path, 1)
    newest = write(tmp_path, 2)
    data = bytearray((newest / name).read_bytes())
    data[len(data) // 2] ^= 0x55
    if damage == "gone":
        (newest / name).unlink()
    else:
        (newest / name).write_bytes(
            {"flip": data, "cut": data[: len(data) // 2], "empty": b""}[damage]
        )
    if (name, damage) == ("manifest.json", "gone"):
        assert checkpoint.find(tmp_path, "auto").name == "step_00000001"
        return
    if (name, damage) == ("manifest.json", "flip"):
        pytest.skip("a flipped byte of the manifest may still be a true manifest")
    with pytest.warns(UserWarning, match=name):
        assert checkpoint.find(tmp_path, "auto").name == "step_00000001"
    with pytest.raises(CheckpointError, match=name):
        checkpoint.find(tmp_path, str(newest))


def test_a_half_written_one_does_not_count(tmp_path):
    write(tmp_path, 1)
    draft = tmp_path / ".writing_step_00000002"
    draft.mkdir()
    (draft / "model.safetensors").write_bytes(b"half")
    assert checkpoint.find(tmp_path, "auto").name == "step_00000001"


def test_a_missing_one_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="no such checkpoint") as error:
        checkpoint.find(tmp_path, str(tmp_path / "step_00000009"))
    assert "\n" not in str(error.value)
    assert checkpoint.find(tmp_path, "never") is None


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"seed": 5}, "seed"),
        ({"batch_size": 4}, "batch_size"),
        ({"data": {**TINY["data"], "count": 99}}, "data.count"),
        ({"ema": 0.5}, "ema"),
    ],
)
def test_another_config_is_refused_by_key_and_changes_nothing(run, change, key):
    folder = run(TINY, steps=4)
    before = (folder / "config.yaml").read_bytes()
    with pytest.raises(ConfigError, match=rf"^{key}: the checkpoint .* was trained with") as error:
        run(TINY, steps=8, **change)
    assert "\n" not in str(error.value)
    assert (folder / "config.yaml").read_bytes() == before


def test_another_learning_rate_is_taken_from_the_config(run):
    run(TINY, steps=4)
    folder = run(TINY, steps=8, optimizer={"kind": "adamw", "lr": 1e-5})
    assert [row["lr"] for row in lines(folder)][-1] < 1e-5 < [row["lr"] for row in lines(folder)][3]


def test_a_model_that_was_not_written_is_written_by_the_next_start(run):
    import shutil

    folder = run(TINY)
    weights = (folder / "model/model.safetensors").read_bytes()
    shutil.rmtree(folder / "model")  # killed between the last checkpoint and the export
    run(TINY)
    assert (folder / "model/model.safetensors").read_bytes() == weights


def test_weights_that_are_not_finite_are_not_saved(run):
    run(TINY, steps=4)
    with pytest.raises(FloatingPointError, match="not finite"):
        run(TINY, steps=12, log_every=100, save_every=6, optimizer={"kind": "adamw", "lr": 1e38})
    folder = run(TINY, steps=8)  # goes on from the last good one
    assert lines(folder)[-1]["step"] == 8


@pytest.mark.parametrize(
    "name",
    [
        "tokenizer.safetensors",
        "state.json",
    ],
)
def test_a_pickle_in_a_checkpoint_is_refused(run, tmp_path, name):
    import pickle

    class Bomb:
        def __reduce__(self):
            return open, (str(tmp_path / "PWNED"), "w")

    path = run(TINY, steps=4) / "checkpoints/step_00000004"
    (path / name).write_bytes(pickle.dumps(Bomb()))
    for step in (checkpoint.verify, checkpoint.load):  # by the manifest, and without it
        with pytest.raises(CheckpointError, match=name):
            step(path)
    assert not (tmp_path / "PWNED").exists()


def test_metrics_after_a_resume_have_each_step_once(run):
    run(TINY, steps=12, save_every=4)
    folder = run(TINY, steps=12)
    assert [row["step"] for row in lines(folder)] == list(range(1, 13))


def test_starting_again_never_leaves_an_older_run_in_the_way(run):
    other = {**TINY, "seed": 1}
    clean = run(other, "clean", resume="never")
    folder = run(TINY, "used")
    run(other, "used", resume="never")
    name = "checkpoints/step_00000008/tokenizer.safetensors"
    assert (folder / name).read_bytes() == (clean / name).read_bytes()
    assert (folder / "checkpoints/abandoned_step_00000008").is_dir()


def test_going_on_from_an_earlier_one_abandons_the_later(run):
    folder = run(TINY)
    before = (folder / "checkpoints/step_00000008/tokenizer.safetensors").read_bytes()
    path = str(folder / "checkpoints/step_00000004")
    run(TINY, resume=path, optimizer={"kind": "adamw", "lr": 1e-2})
    assert (folder / "checkpoints/step_00000008/tokenizer.safetensors").read_bytes() != before
