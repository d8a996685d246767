"""A resume tells which settings changed, and config.yaml keeps what held when."""

from __future__ import annotations

import json
import shutil

import yaml

from tests.support.training import TINY, rewound
from vistok.config import ConfigError, validate
from vistok.train.checkpoint.history import changes, header, settings
from vistok.train.config import TrainConfig

SGD = {"kind": "sgd", "lr": 0.01}


def resumed_line(capsys) -> str:
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("resumed from")]
    return line


def test_settings_are_flat_and_leave_places_out():
    flat = settings(validate(TrainConfig, TINY), 2)
    assert (flat["optimizer.lr"], flat["steps"], flat["processes"]) == (1e-3, 12, 2)
    assert flat["task.tokenizer.quantizer.levels.1"] == 5
    assert not {"name", "out", "resume", "workers", "log_every", "trackers.0"} & set(flat)


def test_changes_name_what_is_new_and_what_is_gone():
    found = changes(4, {"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 5, "d": None, "e": 6})
    assert [(c["key"], c["before"], c["now"]) for c in found] == [
        ("b", 2, 5),
        ("c", 3, None),
        ("e", None, 6),
    ]
    assert header([]) == ""
    assert header(found[:1]).splitlines()[1] == "# after step 4: b from 2 to 5"


def test_another_learning_rate_is_said_and_kept(run, capsys):
    whole = run(TINY)
    assert not (whole / "config.yaml").read_text().startswith("#")
    folder = rewound(whole)
    capsys.readouterr()
    run(TINY, "stopped", optimizer={"kind": "adamw", "lr": 2e-3}, steps=8)
    assert resumed_line(capsys).endswith(
        ", steps: 12 before, 8 now, optimizer.lr: 0.001 before, 0.002 now"
    )
    # A second time: what changed before is still told, by the file and by the checkpoints.
    run(TINY, "stopped", optimizer={"kind": "adamw", "lr": 4e-3}, steps=12, clip=None)
    assert resumed_line(capsys).endswith(
        "steps: 8 before, 12 now, optimizer.lr: 0.002 before, 0.004 now, clip: 1.0 before, None now"
    )
    text = (folder / "config.yaml").read_text()
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# What holds now; changed when the run was resumed:",
        "# after step 4: steps from 12 to 8",
        "# after step 4: optimizer.lr from 0.001 to 0.002",
        "# after step 8: steps from 8 to 12",
        "# after step 8: optimizer.lr from 0.002 to 0.004",
        "# after step 8: clip from 1.0 to null",
    ]
    assert yaml.safe_load(text)["optimizer"]["lr"] == 4e-3
    state = json.loads((folder / "checkpoints/step_00000012/state.json").read_text())
    assert [change["after_step"] for change in state["history"]] == [4, 4, 8, 8, 8]
    # From an earlier checkpoint: the history is that of the checkpoint.
    for step in (8, 12):
        shutil.rmtree(folder / f"checkpoints/step_{step:08d}")
    shutil.rmtree(folder / "model")
    run(TINY, "stopped", steps=12)
    assert resumed_line(capsys).endswith("step_00000004")
    assert not (folder / "config.yaml").read_text().startswith("#")


def test_another_kind_of_optimizer_is_refused(run, fails):
    rewound(run(TINY, optimizer=SGD))
    for optimizer in (TINY["optimizer"], {"kind": "muon"}):
        with fails(ConfigError, "optimizer.kind: the checkpoint", "'sgd'", "resume=never"):
            run(TINY, "stopped", optimizer=optimizer)
    run(TINY, "stopped", optimizer={**SGD, "lr": 0.02, "momentum": 0.5})  # the same kind may change
