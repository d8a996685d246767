"""Two real processes: their number is asserted, and they equal one process."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

from tests.train.conftest import ROOT, STATEFUL, command, lines
from train.config import TrainConfig
from train.launch import make_accelerator
from vistok.config import ConfigError, validate

pytestmark = pytest.mark.slow


def test_two_processes_train_quickstart_like_one(tmp_path):
    args = [
        ROOT / "configs/quickstart.yaml",
        *("steps=20 warmup=5 precision=fp32 optimizer.precision=fp32 log_every=1".split()),
        *("trackers=[] save_every=0".split()),
        *("validate_every=0 grid_every=0 data.val_count=16 batch_size=16".split()),
    ]
    for processes in (1, 2):
        done = command(*args, f"out={tmp_path}/{processes}", processes=processes)
        assert done.returncode == 0, done.stderr
        world = (tmp_path / str(processes) / "checkpoints/step_00000020/state.json").read_text()
        assert f'"world": {processes}' in world
    one, two = lines(tmp_path / "1"), lines(tmp_path / "2")
    assert len(one) == len(two) == 20
    for a, b in zip(one, two, strict=True):
        assert abs(a["loss"] - b["loss"]) < 1e-5, a["step"]


def test_ema_codebooks_and_perturbation_see_the_global_batch(tmp_path, write):
    tree = copy.deepcopy(STATEFUL)
    tree["task"]["losses"] = [{"kind": "reconstruction"}]
    for part in ("encoder", "decoder"):
        # A bias of keys has no gradient but rounding noise, which Adam would blow up.
        tree["task"]["tokenizer"][part]["transformer"]["bias"] = False
    path = write(tree)
    for processes in (1, 2):
        done = command(path, f"out={tmp_path}/{processes}", processes=processes)
        assert done.returncode == 0, done.stderr
    name = "checkpoints/step_00000012/tokenizer.safetensors"
    one, two = load_file(tmp_path / "1" / name), load_file(tmp_path / "2" / name)
    assert (one["quantizer.codebook"] - two["quantizer.codebook"]).abs().max() < 1e-6
    for key in one:
        assert (one[key].float() - two[key].float()).abs().max() < 1e-5, key


def test_processes_that_do_not_find_each_other_stop(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("train.launch.Accelerator", lambda **_: SimpleNamespace(num_processes=1))
    with pytest.raises(ConfigError, match=r"started 2 processes but 1 found.*torchrun"):
        make_accelerator(validate(TrainConfig, STATEFUL))


def test_a_batch_that_does_not_split_is_one_line(tmp_path, write):
    done = command(write({**STATEFUL, "batch_size": 7}), f"out={tmp_path}/x", processes=2)
    assert done.returncode != 0
    assert "batch_size=7 does not split over 2 processes" in done.stderr
