"""A video recipe with a 3D discriminator: resumes bit for bit, and two processes equal one."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from click.testing import CliRunner
from safetensors.torch import load_file

from tests.support.recipes import TINY
from tests.support.training import command, forget_accelerate, rewound
from vistok.config import read_yaml
from vistok.train.__main__ import main

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(config, run of it): 12 steps, both networks and LeCam's means from the first ones on."""
    folder = tmp_path_factory.mktemp("video")
    tree = read_yaml(TINY["open_magvit2_video"])
    tokenizer = tree["task"]["tokenizer"]
    for part in ("encoder", "decoder"):
        tokenizer[part]["net"] |= {"channel_mult": [1, 2], "halve_time": [True]}
    tree["task"]["tokenizer"] |= {"image_size": 16, "frames": 3}
    tree["task"]["losses"][2]["start"] = 2
    del tree["task"]["losses"][1]
    tree |= {"steps": 12, "save_every": 4, "keep_last": 10, "log_every": 1, "trackers": []}
    tree["data"] |= {"size": 16, "frames": 3, "val_count": 4}
    # Adam would blow up the noise of gradients that are nearly zero.
    tree["optimizer"] |= {"lr": 1e-3, "eps": 1e-4}
    config = folder / "video.yaml"
    plain = json.loads(json.dumps(tree, default=str))
    config.write_text(yaml.safe_dump(plain), encoding="utf-8")
    train(config, folder / "whole")
    return config, folder / "whole"


def train(config, out) -> None:
    forget_accelerate()
    done = CliRunner().invoke(main, [str(config), f"out={out}"], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def tensors(run) -> dict:
    """All that the last checkpoint holds: both networks, optimizers, LeCam's means, averages."""
    found = {}
    for file in sorted((run / "checkpoints/step_00000012").glob("*.safetensors")):
        found |= {f"{file.name}/{key}": value for key, value in load_file(file).items()}
    return found


def test_it_resumes_bit_for_bit(whole):
    config, run = whole
    stopped = rewound(run)
    train(config, stopped)
    mine, theirs = tensors(stopped), tensors(run)
    assert set(mine) == set(theirs) and any("discriminator" in key for key in mine)
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_two_processes_train_like_one(whole):
    config, run = whole
    done = command(config, f"out={run.parent / 'two'}", processes=2)
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = tensors(run), tensors(run.parent / "two")
    shared = [key for key in one if key in two and "model" in key]
    assert any("ema_real" in key and float(one[key]) for key in one)
    assert shared and max(float((one[k] - two[k]).abs().max()) for k in shared) < 1e-5
