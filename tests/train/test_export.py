"""The finished model and its config are those of the newest checkpoint, whatever was killed."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.training import TINY, lines
from vistok.config import ConfigError
from vistok.eval.systems.runs import RunError, read_run
from vistok.storage.sealed import SealError, sealed
from vistok.train.export import Export

MODEL = "model/model.safetensors"


def dies(monkeypatch, name: str, owner: type | str = Export) -> None:
    """The process is killed in this moment."""

    def killed(*_, **__):
        raise KeyboardInterrupt

    place = (owner, name) if isinstance(owner, type) else (f"{owner}.{name}",)
    monkeypatch.setattr(*place, killed)


def state(folder) -> dict[str, bytes]:
    names = ("config.yaml", "summary.json", "metrics.jsonl", MODEL, "model/training.json")
    return {name: (folder / name).read_bytes() for name in names}


def steps(folder) -> tuple[int, int]:
    """Steps of the model, and of the summary."""
    record = json.loads((folder / "model/training.json").read_text())
    return record["step"], json.loads((folder / "summary.json").read_text())["steps"]


def is_newest(folder, step: int) -> bool:
    """True if the model is the average that the checkpoint of `step` holds."""
    kept = load_file(folder / f"checkpoints/step_{step:08d}/ema.tokenizer.safetensors")
    found = load_file(folder / MODEL)
    return kept.keys() == found.keys() and all(torch.equal(kept[k], found[k]) for k in kept)


@pytest.mark.parametrize("moment", ["write", "finish"])
def test_a_longer_run_that_dies_in_its_export_exports_at_the_next_start(run, monkeypatch, moment):
    folder = run({**TINY, "steps": 4})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        dies(patch, moment, *(["vistok.train.export"] if moment == "finish" else []))
        run({**TINY, "steps": 8})
    assert steps(folder)[1] == 4 and is_newest(folder, 8) == (moment == "finish")
    run({**TINY, "steps": 8})
    assert steps(folder) == (8, 8) and is_newest(folder, 8)
    assert [row["step"] for row in lines(folder, "val")] == [4, 8]


def test_a_run_begun_anew_that_dies_in_its_export_does_not_keep_the_old_model(run, monkeypatch):
    folder = run({**TINY, "steps": 4})
    again = {**TINY, "steps": 4, "seed": 1}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        dies(patch, "write")
        run(again, resume="never")
    assert not is_newest(folder, 4)
    with pytest.raises(RunError, match=r"model is that of step 4, and config\.yaml is not the"):
        read_run(folder, "run")
    run(again)
    assert is_newest(folder, 4) and read_run(folder, "run").config["seed"] == 1


def test_what_is_damaged_or_gone_is_written_again(run):
    folder = run({**TINY, "steps": 4})
    good = state(folder)
    for name in ("summary.json", "model/training.json", MODEL):
        (folder / name).write_bytes(good[name][:20])
        run({**TINY, "steps": 4})
        assert state(folder) == good, name


def test_a_finished_run_takes_no_other_settings(run, fails, capsys):
    folder = run({**TINY, "steps": 4})
    before = state(folder)
    for change, said in (
        ({"optimizer": {"kind": "adamw", "lr": 1e-5}}, r"optimizer\.lr: .* trained with 0\.001, "),
        ({"final_lr": 0.5}, "final_lr: .* no step is left; raise steps"),
        ({"steps": 2, "warmup": 0}, "steps=2: .* has done 4 steps; use steps=4 or more"),
    ):
        with fails(ConfigError, said, "resume=never", "another out"):
            run({**TINY, "steps": 4, **change})
        assert state(folder) == before
    capsys.readouterr()
    run({**TINY, "steps": 4, "log_every": 3, "workers": 1})  # changes nothing that was trained
    assert state(folder) == before and "finished 4 steps" in capsys.readouterr().out


def test_a_longer_run_that_was_given_up_has_its_old_config_back(run, monkeypatch):
    folder = run({**TINY, "steps": 4})
    before = state(folder)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        dies(patch, "_save", "vistok.train.loop.Loop")
        run({**TINY, "steps": 8})
    assert state(folder)["config.yaml"] != before["config.yaml"]
    run({**TINY, "steps": 4})
    assert state(folder) == before


def test_an_earlier_checkpoint_gives_its_own_model(run):
    folder = run({**TINY, "steps": 8})
    run(TINY, steps=4, resume=str(folder / "checkpoints/step_00000004"))
    assert steps(folder) == (4, 4) and is_newest(folder, 4) and lines(folder)[-1]["step"] == 4
    assert (folder / "checkpoints/abandoned_step_00000008").is_dir()


def test_weights_and_records_that_training_did_not_write_are_not_evaluated(run, fails):
    folder = run({**TINY, "steps": 1, "warmup": 0})
    weights = load_file(folder / MODEL)
    save_file({key: value + 1 for key, value in weights.items()}, folder / MODEL)
    with fails(RunError, r"model\.safetensors is not the file that training wrote", "data.kind"):
        read_run(folder, "run")
    assert read_run(folder / "model", "model").config is None  # claims nothing of a training
    for text in (sealed({"step": 1}), "[]", "x"):
        (folder / "model/training.json").write_text(text)
        with fails(SealError, r"model/training\.json"):
            read_run(folder, "run")
