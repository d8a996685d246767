"""Checkpoints: whole or not at all, damage found and named, no code in them."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import pytest
import torch

from tests.support.training import TINY, lines
from vistok.config import ConfigError, validate
from vistok.storage.sealed import sealed
from vistok.train.checkpoint import files as checkpoint
from vistok.train.checkpoint.files import CheckpointError, Keep, Snapshot
from vistok.train.checkpoint.resume import binding
from vistok.train.config import TrainConfig


def write(folder, step, keep=Keep(5), score=None):
    state = Snapshot(step, {"model": {"w": torch.arange(4.0) + step}}, {"note": "x"})
    path = checkpoint.save(folder, state, keep)
    if score is not None:  # known after the save
        checkpoint.set_score(path, score)
        checkpoint.prune(folder, keep)
    return path


def steps(folder):
    return [checkpoint.step_of(path) for path in checkpoint.complete(folder)]


def test_what_is_saved_is_loaded(tmp_path):
    state = checkpoint.load(write(tmp_path, 7))
    assert state.step == 7 and state.facts["note"] == "x"
    assert torch.equal(state.tensors["model"]["w"], torch.arange(4.0) + 7)


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (Keep(last=2), [8, 7]),
        (Keep(last=1, every=3), [8, 6, 3]),
        (Keep(last=1, best=2), [8, 4, 2]),
        (Keep(last=1, best=1, every=5), [8, 5, 4]),
    ],
    ids=["last", "every", "best", "all"],
)
def test_three_rules_say_which_are_kept(tmp_path, keep, kept):
    scores = {2: 20.0, 4: 21.5, 6: 19.0, 8: 18.0}  # validation looks at every other one
    for step in range(1, 9):
        write(tmp_path, step, keep, scores.get(step))
    assert steps(tmp_path) == kept


# -- folders of the user's -------------------------------------------------------------------------
COPIES = ("step_4_backup", "step_8_best", "step_old", "step_00000004_best", "step_4", "step_99")


def test_copies_of_the_user_are_neither_removed_nor_resumed_from(tmp_path):
    write(tmp_path, 4)
    names = (*COPIES, "step_00000099", "step_000000004", "step_-0000004", "step_٠٠٠٠٠٠٠٩")
    for name in names:
        shutil.copytree(tmp_path / "step_00000004", tmp_path / name)
    (tmp_path / "step_00000050").mkdir()  # without a manifest
    (tmp_path / "step_00000051").write_text("a note")
    (tmp_path / ".writing_step_mine").mkdir()
    for step in (5, 6):
        write(tmp_path, step, Keep(last=1))
    assert steps(tmp_path) == [6]
    assert checkpoint.find(tmp_path, "auto").name == "step_00000006"
    checkpoint.set_aside(tmp_path, after=0)
    assert checkpoint.find(tmp_path, "auto") is None
    assert {path.name for path in tmp_path.iterdir()} == {
        *(*names, "step_00000050", "step_00000051", ".writing_step_mine"),
        "abandoned_step_00000006",
    }
    # Whoever names one means it.
    assert checkpoint.find(tmp_path, str(tmp_path / "step_8_best")).name == "step_8_best"


def test_a_folder_of_the_user_in_the_place_of_a_checkpoint_is_moved_away(tmp_path):
    write(tmp_path, 4)
    shutil.copytree(tmp_path / "step_00000004", tmp_path / "step_00000008")  # says 4 inside
    (tmp_path / "step_00000012").mkdir()
    (tmp_path / "step_00000012" / "notes.txt").write_text("mine")
    for step in (8, 12):
        write(tmp_path, step)
    assert steps(tmp_path) == [12, 8, 4]
    assert json.loads((tmp_path / "abandoned_step_00000008/state.json").read_text())["step"] == 4
    assert (tmp_path / "abandoned_step_00000012/notes.txt").read_text() == "mine"


def test_linked_checkpoints_are_resumed_from_and_stay(tmp_path):
    archive = write(tmp_path / "archive", 4)
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "step_00000004").symlink_to(archive)
    assert checkpoint.find(runs, "auto").name == "step_00000004"
    for step in (5, 6):
        write(runs, step, Keep(last=1))
    assert steps(runs) == [6, 4]
    write(runs, 4)  # trained again: the link gives way, what it led to does not
    assert not (runs / "step_00000004").is_symlink() and archive.is_dir()


def test_steps_are_numbers_however_many_digits_they_have(tmp_path):
    many = [99_999_999, 100_000_000, 1_000_000_000]
    for step in many:
        write(tmp_path, step)
    assert steps(tmp_path) == many[::-1]
    assert checkpoint.find(tmp_path, "auto").name == "step_1000000000"
    write(tmp_path, 100_000_001, Keep(last=2))
    assert steps(tmp_path) == [1_000_000_000, 100_000_001]


def test_what_is_set_aside_again_is_not_lost(tmp_path):
    for value in (1, 2, 3):
        state = Snapshot(8, {"model": {"w": torch.tensor(float(value))}}, {})
        checkpoint.save(tmp_path, state, Keep())
        checkpoint.set_aside(tmp_path, after=0)
    found = [tmp_path / f"abandoned_step_00000008{end}" for end in ("", "_2", "_3")]
    assert [checkpoint.load(path).tensors["model"]["w"].item() for path in found] == [1, 2, 3]


# -- damage ----------------------------------------------------------------------------------------
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
    with pytest.warns(UserWarning, match=name):
        assert checkpoint.find(tmp_path, "auto").name == "step_00000001"
    with pytest.raises(CheckpointError, match=name):
        checkpoint.find(tmp_path, str(newest))


def test_any_flipped_byte_of_a_manifest_is_found(tmp_path):
    file = write(tmp_path, 1) / "manifest.json"
    good = file.read_bytes()
    for place in range(len(good)):
        for bit in (1, 32):  # 32 turns a newline into a star, a space into nothing
            data = bytearray(good)
            data[place] ^= bit
            file.write_bytes(data)
            with pytest.raises(CheckpointError, match=r"manifest\.json"):
                checkpoint.verify(file.parent)
    file.write_bytes(good)
    checkpoint.verify(file.parent)


def test_a_half_written_one_does_not_count_and_is_swept_away(tmp_path):
    write(tmp_path, 1)
    for prefix in (".writing_", ".removing_"):
        draft = tmp_path / f"{prefix}step_00000002"
        draft.mkdir()
        (draft / "model.safetensors").write_bytes(b"half")
    assert checkpoint.find(tmp_path, "auto").name == "step_00000001"
    write(tmp_path, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000001", "step_00000003"]


def test_a_disk_that_is_too_small_is_found_before_anything_is_written(tmp_path, monkeypatch):
    write(tmp_path, 1)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(CheckpointError, match=r"needs 1\.0 MiB .* 0\.0 free.* start the same"):
        write(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]


def test_a_stranger_in_a_checkpoint_is_not_read(tmp_path, broken):
    path = write(tmp_path, 1)
    shutil.copy(broken / "malicious.pt", path / "other.safetensors")
    assert set(checkpoint.load(path).tensors) == {"model"}


def test_a_manifest_that_points_elsewhere_is_refused(tmp_path):
    path = write(tmp_path, 1)
    facts = json.loads((path / "manifest.json").read_text())
    facts.pop("seal")
    facts["files"]["../../other.safetensors"] = facts["files"]["model.safetensors"]
    (path / "manifest.json").write_text(sealed(facts))
    with pytest.raises(CheckpointError, match="outside of its folder"):
        checkpoint.load(path)


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


@pytest.mark.parametrize("resume", ["auto", "never"])
def test_a_run_leaves_the_copies_of_its_user_alone(run, resume):
    folder = run({**TINY, "steps": 4}) / "checkpoints"
    for name in COPIES:
        shutil.copytree(folder / "step_00000004", folder / name)
    run(TINY, steps=8, resume=resume, keep_last=1)
    assert all((folder / name / "manifest.json").is_file() for name in COPIES)
    assert steps(folder) == [8]


def test_another_learning_rate_is_taken_from_the_config(run):
    run(TINY, steps=4)
    folder = run(TINY, steps=8, optimizer={"kind": "adamw", "lr": 1e-5})
    assert [row["lr"] for row in lines(folder)][-1] < 1e-5 < [row["lr"] for row in lines(folder)][3]


def test_what_is_only_validated_or_logged_may_change():
    def bound(**changes) -> dict:
        tree = {**TINY, "task": {**TINY["task"], **changes}}
        return binding(validate(TrainConfig, tree), None, {})

    changes = {"sampling": {"steps": 3}, "validate_lengths": [1], "term_gradients_every": 7}
    assert bound(**changes) == bound()
    assert bound(freeze=["encoder"]) != bound()


def test_a_model_that_was_not_written_is_written_by_the_next_start(run):
    import shutil

    folder = run(TINY)
    weights = (folder / "model/model.safetensors").read_bytes()
    shutil.rmtree(folder / "model")  # killed between the last checkpoint and the export
    run(TINY)
    assert (folder / "model/model.safetensors").read_bytes() == weights


def test_steps_that_are_not_finite_stop_the_run_and_spoil_no_checkpoint(run):
    good = run(TINY, steps=4) / "checkpoints"
    broken = {"save_every": 2, "keep_last": 2, "optimizer": {"kind": "adamw", "lr": 1e38}}
    with pytest.raises(FloatingPointError, match="3 in a row, the limit of max_skipped"):
        run(TINY, steps=12, max_skipped=3, **broken)
    assert 4 in steps(good)  # step 5 broke the weights; what came after was never kept
    folder = run(TINY, steps=8, resume=str(good / "step_00000004"))
    assert lines(folder)[-1]["step"] == 8


@pytest.mark.parametrize("bomb", ["malicious.bin", "malicious.pt"])
def test_a_pickle_in_place_of_any_file_is_refused_by_name(run, broken, monkeypatch, tmp_path, bomb):
    monkeypatch.chdir(tmp_path)  # it would leave PWNED in the current folder
    path = run(TINY, steps=4) / "checkpoints/step_00000004"
    names = [file.name for file in path.iterdir()]
    assert len(names) == 6  # weights, average, optimizer, codes seen, state, manifest
    for name in names:
        good = (path / name).read_bytes()
        shutil.copy(broken / bomb, path / name)
        for read in (checkpoint.verify, checkpoint.load):  # by the manifest, and without it
            with pytest.raises(CheckpointError, match=name) as error:
                read(path)
            assert "\n" not in str(error.value)
        (path / name).write_bytes(good)
    assert not (tmp_path / "PWNED").exists()


def test_the_best_by_validation_is_kept(run):
    folder = run(TINY, save_every=2, validate_every=2, keep_last=1, keep_best=1, steps=8)
    psnr = {row["step"]: row["psnr"] for row in lines(folder, "val")}
    best = max(psnr, key=psnr.get)
    assert steps(folder / "checkpoints") == sorted({8, best}, reverse=True)


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


def test_a_checkpoint_that_is_pruned_while_it_is_looked_at_is_none(tmp_path, monkeypatch):
    """By the run itself, when another process reads its folder."""
    path = tmp_path / "step_00000004"
    path.mkdir()
    (path / "manifest.json").write_text("{}")

    def pruned(place):
        (place / "manifest.json").unlink()
        raise FileNotFoundError(place / "manifest.json")

    monkeypatch.setattr(checkpoint, "_manifest", pruned)
    assert checkpoint.complete(tmp_path) == []
