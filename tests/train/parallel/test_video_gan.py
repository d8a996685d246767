"""A video recipe with a 3D discriminator: killed and resumed bit for bit, and two processes equal
one."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.support.processes import start
from tests.support.recipes import TINY
from tests.support.training import lines
from vistok.config import read_yaml

pytestmark = pytest.mark.slow

STEPS = 8
NETWORKS = ("tokenizer", "ema.tokenizer", "discriminator")
OPTIMIZERS = ("optimizer.tokenizer", "optimizer.discriminator")


def tree() -> dict:
    """The tiny recipe with smaller networks: both train, with LeCam's means, from step 2 on."""
    made = read_yaml(TINY["open_magvit2_video"])
    tokenizer = made["task"]["tokenizer"]
    for part in ("encoder", "decoder"):
        tokenizer[part]["net"] |= {"channels": 4, "channel_mult": [1, 2], "halve_time": [True]}
    tokenizer |= {"image_size": 16, "frames": 3}
    del made["task"]["losses"][1]  # the perceptual one
    made["task"]["losses"][1]["start"] = 2
    # Six clips for validation: one process has two batches of them and the other has one.
    made["data"] |= {"size": 16, "frames": 3, "count": 16, "val_count": 6}
    # Adam would blow up the noise of gradients that are nearly zero.
    made["optimizer"] |= {"lr": 1e-3, "eps": 1e-4}
    made |= {"steps": STEPS, "batch_size": 4, "save_every": 2, "keep_last": 10}
    made |= {"validate_every": 4, "log_every": 1, "trackers": []}
    return json.loads(json.dumps(made, default=str))


def begun(folder: Path, name: str, processes: int = 1):
    """A job that trains, or resumes, the run of this name."""
    config = folder / f"{name}.yaml"
    config.write_text(yaml.safe_dump(tree() | {"out": str(folder / name)}), encoding="utf-8")
    return start("tests.support.launched", config, processes=processes)


def finished(job) -> None:
    done = job.wait(120)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Folder of three runs: of one process, of one that is killed and resumed, of two."""
    folder = tmp_path_factory.mktemp("video")
    whole, job = begun(folder, "one"), begun(folder, "killed")
    early = folder / "killed/checkpoints" / f"step_{4:08d}" / "manifest.json"
    while not early.exists() and job.poll() is None:
        time.sleep(0.005)
    job.send_signal(9)
    assert job.wait(60).returncode == -9
    assert not checkpoint(folder / "killed").exists()
    resumed, two = begun(folder, "killed"), begun(folder, "two", processes=2)
    for job in (whole, resumed, two):
        finished(job)
    return folder


def checkpoint(run: Path, step: int = STEPS) -> Path:
    return run / "checkpoints" / f"step_{step:08d}"


def tensors(run: Path, *names: str, step: int = STEPS) -> dict[str, torch.Tensor]:
    return {
        f"{name}/{key}": value
        for name in names
        for key, value in load_file(checkpoint(run, step) / f"{name}.safetensors").items()
    }


def test_a_killed_run_ends_equal_to_the_bit(runs):
    files = {file.name for file in checkpoint(runs / "one").glob("*.safetensors")}
    assert {f"{name}.safetensors" for name in (*NETWORKS, *OPTIMIZERS)} <= files
    names = [name.removesuffix(".safetensors") for name in files]
    whole, resumed = tensors(runs / "one", *names), tensors(runs / "killed", *names)
    assert whole.keys() == resumed.keys()
    assert [key for key in whole if not torch.equal(whole[key], resumed[key])] == []
    # Everything had still to move after the checkpoint that the run resumed from.
    early = tensors(runs / "one", *NETWORKS, step=4)
    still = {key.split("/")[0] for key in early if not torch.equal(early[key], whole[key])}
    assert still == set(NETWORKS)


def test_two_processes_train_like_one(runs):
    worlds = [json.loads((checkpoint(runs / name) / "state.json").read_text("utf-8"))["world"]
              for name in ("one", "two")]  # fmt: skip
    assert worlds == [1, 2]
    one, two = lines(runs / "one"), lines(runs / "two")
    assert len(one) == len(two) == STEPS and {"adversarial", "lecam"} <= one[-1].keys()
    for a, b in zip(one, two, strict=True):
        assert abs(a["loss"] - b["loss"]) < 1e-5, a["step"]
    mine, theirs = (tensors(runs / name, *NETWORKS) for name in ("one", "two"))
    assert mine.keys() == theirs.keys()
    assert float(mine["discriminator/ema_real"])
    apart = {key: float((mine[key] - theirs[key]).abs().max()) for key in mine}
    assert max(apart.values()) < 1e-5, max(apart, key=apart.get)
    # A share of one batch each is not all that validation has.
    (one, *_), (two, *_) = (lines(runs / name, "val") for name in ("one", "two"))
    assert abs(one["psnr"] - two["psnr"]) < 1e-3
