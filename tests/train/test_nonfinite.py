"""Steps that are not finite are skipped, named and counted."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from tests.support.training import STATEFUL, TINY, alarms, forget_accelerate, lines, rewound
from vistok.config import load_plugins
from vistok.losses.adversarial import AdversarialLoss
from vistok.train.__main__ import main


@pytest.fixture(autouse=True)
def _parts():
    load_plugins(["tests.support.train_parts"])


def poisoned(tree: dict, *steps: int, where: str = "loss") -> dict:
    tree = copy.deepcopy(tree)
    losses = tree["task"].get("losses", [{"kind": "reconstruction"}])
    tree["task"]["losses"] = [*losses, {"kind": "poison", "steps": steps, "where": where}]
    return tree


def nothing_moved(folder) -> None:
    """Between steps 5 and 6, in any of what a run with a discriminator saves."""
    saved = folder / "checkpoints"
    for name in (
        "tokenizer",
        "discriminator",
        "ema.tokenizer",
        "optimizer.tokenizer",
        "optimizer.discriminator",
    ):
        before, after = (
            load_file(saved / f"step_0000000{step}" / f"{name}.safetensors") for step in (5, 6)
        )
        assert all(torch.equal(before[key], after[key]) for key in before), name


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_bad_step_changes_nothing_and_is_named(run, where, capsys):
    # All that has state: EMA codebook, revival, discriminator, LeCam. Step 5 is bad, of 6.
    tree = poisoned(STATEFUL, 5, where=where)
    tree["task"]["losses"][1]["adaptive"] = False  # it would see the gradient first
    folder = run({**tree, "steps": 6, "save_every": 1, "keep_last": 10, "warmup": 0})
    nothing_moved(folder)
    alarm = alarms(folder)[0]
    assert alarm["step"] == 6 and alarm["alarm"] == "not finite"
    said = capsys.readouterr().out
    if where == "loss":
        (rank,) = alarm["ranks"]
        assert "poison" in rank["terms"] and len(rank["samples"]) == 8
        assert "step 6 skipped: poison of tokenizer is not finite on process 0 (samples" in said
    else:
        assert alarm["ranks"] == [] and "decoder" in alarm["gradients"]
        assert "the gradient of tokenizer is not finite in" in said
    row = lines(folder)[-1]
    assert row["skipped_steps"] == 1
    assert all(value is None or math.isfinite(value) for value in row.values() if value != "train")


def test_a_bad_phase_of_the_discriminator_holds_the_tokenizer_back_too(run, monkeypatch):
    whole, phases = AdversarialLoss.discriminate, []

    def spoilt(self, discriminator, real, fake, *others):
        loss, logged = whole(self, discriminator, real, fake, *others)
        phases.extend([1] * (type(fake) is torch.Tensor))  # not those of a cost trace
        return (loss * math.nan if len(phases) == 4 else loss), logged  # it begins at step 2

    monkeypatch.setattr(AdversarialLoss, "discriminate", spoilt)
    folder = run({**STATEFUL, "steps": 6, "save_every": 1, "keep_last": 10, "warmup": 0})
    nothing_moved(folder)
    (alarm,) = alarms(folder)
    assert (alarm["step"], alarm["module"]) == (6, "discriminator")


def test_training_goes_on_after_a_bad_step_and_resumes_exactly(run):
    tree = poisoned(TINY, 2, 6)
    whole = run(tree, "whole")
    stopped = rewound(whole)
    run(tree, "stopped")
    for name in ("tokenizer.safetensors", "ema.tokenizer.safetensors", "state.json"):
        path = f"checkpoints/step_00000012/{name}"
        assert (stopped / path).read_bytes() == (whole / path).read_bytes()
    assert lines(stopped)[-1]["skipped_steps"] == 2
    assert lines(whole)[-1]["loss"] is not None


def all_skipped(tree: dict, steps: int) -> dict:
    return poisoned(tree, *range(steps)) | {"steps": steps, "max_skipped": 99, "warmup": 0}


def test_a_run_that_took_no_step_fails_and_writes_no_model(run, tmp_path, fails):
    tree = all_skipped(TINY, 5)
    for _ in range(2):  # the same command again does not call it finished either
        with fails(FloatingPointError, "all 5 steps were skipped", "nothing was learned"):
            run(tree)
        assert not (tmp_path / "run/model").exists()
        assert not (tmp_path / "run/summary.json").exists()


def test_the_command_ends_with_an_exit_code(write, tmp_path):
    forget_accelerate()
    tree = all_skipped(TINY, 3)
    done = CliRunner().invoke(main, [str(write(tree)), f"out={tmp_path}/run"])
    assert done.exit_code == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: all 3 steps were skipped")


def test_a_resumed_run_that_took_no_step_fails_too(run, fails):
    tree = poisoned(TINY, *range(4, 12)) | {"max_skipped": 99}
    with fails(FloatingPointError, "step 12 skipped", "8 in a row"):
        run({**tree, "max_skipped": 8})
    with fails(FloatingPointError, "all 8 steps were skipped"):
        run(tree)
    run({**tree, "steps": 14})  # good steps at the end: a model


def test_too_many_in_a_row_stop_the_run_with_a_dump_of_norms(run, tmp_path, fails):
    tree = poisoned(TINY, 1, 4, 5, 6, where="gradient")
    with fails(FloatingPointError, "step 7 skipped", "3 in a row", "optimizer.lr", "alarms.jsonl"):
        run({**tree, "max_skipped": 3, "save_every": 1})
    folder = tmp_path / "run"
    rows = [json.loads(line) for line in (folder / "gradient_norms.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert {"all", "encoder", "decoder"} <= set(rows[0]) and math.isfinite(rows[0]["encoder"])
    assert rows[-1]["all"] == "nan"
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert names[-1] == "step_00000004"  # steps 5 to 7 were bad
    assert lines(folder)[-1]["step"] == 6  # the step that stopped it has no line
