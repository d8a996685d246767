"""Real processes under torchrun: their number is asserted, and they equal one process."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from safetensors.torch import load_file

from tests.support.training import ROOT, STATEFUL, TINY, command, lines, rewound
from vistok.config import ConfigError, read_yaml, validate
from vistok.train.config import TrainConfig
from vistok.train.launch import make_accelerator

pytestmark = pytest.mark.slow


def gan_tree() -> dict:
    """All that looks at the whole batch: EMA codebook, revival, perturbation, GAN, LeCam."""
    tree = copy.deepcopy(STATEFUL)
    for part in ("encoder", "decoder"):
        # A bias of keys has no gradient but rounding noise, which Adam would blow up.
        tree["task"]["tokenizer"][part]["transformer"]["bias"] = False
    # A code that a few steps do not hit is below it.
    tree["task"]["tokenizer"]["quantizer"]["revive_below"] = 0.97
    # Nor has the discriminator's last bias, as long as real and fake cancel.
    return tree | {"optimizer": {"kind": "adamw", "lr": 1e-3, "eps": 1e-4}}


def ema_tree() -> dict:
    tree = gan_tree()
    del tree["task"]["losses"]
    return tree | {"steps": 20, "save_every": 20}


def projector_tree() -> dict:
    """A network that trains with the tokenizer, from the third step on, and one that does not."""
    tree = ema_tree()
    tree["task"]["losses"] = [
        {"kind": "reconstruction"},
        {"kind": "color_projector", "start": 2},
        {"kind": "brightness_probe"},
    ]
    return tree | {"steps": 12, "save_every": 4, "accumulate": 2}


def dropout_tree() -> dict:
    """Network dropout, and a codebook that starts from latents under it."""
    tree = ema_tree()
    for part in ("encoder", "decoder"):
        tree["task"]["tokenizer"][part]["transformer"]["dropout"] = 0.2
    return tree | {"steps": 12, "save_every": 12}


def quickstart_tree() -> dict:
    overrides = (
        "steps=20 warmup=5 precision=fp32 optimizer.precision=fp32 log_every=1 trackers=[] "
        "save_every=0 validate_every=0 grid_every=0 data.val_count=16 batch_size=16"
    )
    return read_yaml("quickstart", overrides.split())


def witness_tree(folder: Path) -> dict:
    tree = copy.deepcopy(TINY)
    tree["task"]["losses"] = [{"kind": "reconstruction"}, {"kind": "witness", "folder": folder}]
    tree["data"]["count"] = 48
    return tree | {"steps": 3, "batch_size": 16, "accumulate": 2, "save_every": 1, "warmup": 0}


def launch(folder: Path, processes: int, trees: dict[str, dict]) -> None:
    """All of `trees` in one launch, each into `folder/NAME`."""
    files = []
    for name, tree in trees.items():
        plain = json.loads(json.dumps({**tree, "out": str(folder / name)}, default=str))
        files.append(folder / f"{name}.{processes}.yaml")
        files[-1].write_text(yaml.safe_dump(plain))
    done = command(*files, processes=processes, module="tests.support.launched")
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """FOLDER/NAME-WORLD for each of the trees, trained by 1, 2 and 4 processes."""
    folder = tmp_path_factory.mktemp("processes")
    for world in (1, 2, 4):
        seen = folder / f"seen-{world}"
        seen.mkdir()
        trees = {
            f"ema-{world}": ema_tree(),
            f"gan-{world}": gan_tree(),
            f"witness-{world}": witness_tree(seen),
        }
        if world < 4:
            trees[f"quickstart-{world}"] = quickstart_tree()
            trees[f"projector-{world}"] = projector_tree()
            trees[f"dropout-{world}"] = dropout_tree()
        if world == 2:
            trees["dropout-accumulated-2"] = dropout_tree() | {"accumulate": 2}
            trees["sharded-2"] = gan_tree() | {"sharding": "full"}
            trees["projector-sharded-2"] = projector_tree() | {"sharding": "full"}
            trees["muon-2"] = ema_tree() | {"sharding": "full", "optimizer": {"kind": "muon"}}
            trees["muon-ddp-2"] = ema_tree() | {"optimizer": {"kind": "muon"}}
            trees["noema-2"] = ema_tree() | {"sharding": "full", "ema": None}
        launch(folder, world, trees)
    return folder


def weights(folder: Path, name: str = "tokenizer", step: int | None = None) -> dict:
    path = max((folder / "checkpoints").iterdir())
    if step is not None:
        path = folder / "checkpoints" / f"step_{step:08d}"
    state = load_file(path / f"{name}.safetensors")
    # While the hinge is open on both sides, the discriminator's last bias has a gradient of
    # rounding noise alone, whose sign Adam follows.
    return {key: value for key, value in state.items() if key != "discriminator.layers.5.bias"}


def farthest(a: dict, b: dict) -> float:
    assert a.keys() == b.keys()
    return max((a[key].double() - b[key].double()).abs().max().item() for key in a)


def world_of(folder: Path) -> int:
    path = max((folder / "checkpoints").iterdir())
    return json.loads((path / "state.json").read_text())["world"]


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("name", ["ema", "gan"])
def test_many_processes_train_like_one(runs, name, world):
    one, many = runs / f"{name}-1", runs / f"{name}-{world}"
    assert (world_of(one), world_of(many)) == (1, world)
    a, b = lines(one), lines(many)
    assert len(a) == len(b) == (20 if name == "ema" else 12)
    for x, y in zip(a, b, strict=True):
        assert abs(x["loss"] - y["loss"]) < 1e-5, x["step"]
    files = ["tokenizer", "ema.tokenizer"] + (["discriminator"] if name == "gan" else [])
    for file in files:
        assert farthest(weights(one, file), weights(many, file)) < 1e-5, file
    # That the ranks are equal among themselves, to the bit, every save asserts.
    key = "quantizer.codebook"
    assert farthest({key: weights(one)[key]}, {key: weights(many)[key]}) < 1e-6
    revived = [[row["revived_codes"] for row in rows] for rows in (a, b)]
    assert revived[0] == revived[1] and sum(revived[0]) > 0


@pytest.mark.parametrize("many", ["dropout-2", "dropout-accumulated-2"])
def test_network_dropout_does_not_see_processes_and_micro_batches(runs, many):
    assert (world_of(runs / "dropout-1"), world_of(runs / many)) == (1, 2)
    assert farthest(weights(runs / "dropout-1"), weights(runs / many)) < 1e-5


def test_sharded_modules_train_like_whole_ones(runs):
    for file in ("tokenizer", "ema.tokenizer", "discriminator", "optimizer.tokenizer"):
        one, sharded = weights(runs / "gan-1", file), weights(runs / "sharded-2", file)
        assert farthest(one, sharded) < 1e-5, file
    assert world_of(runs / "sharded-2") == 2
    assert farthest(weights(runs / "muon-ddp-2"), weights(runs / "muon-2")) < 1e-5
    # Validation and export went through whole copies: with an average and without one.
    for a, b in (("gan-1", "sharded-2"), ("muon-ddp-2", "muon-2")):
        psnr = [lines(runs / name, "val")[-1]["psnr"] for name in (a, b)]
        assert psnr[0] == pytest.approx(psnr[1], abs=1e-3)
    exported = load_file(runs / "noema-2/model/model.safetensors")
    assert farthest(exported, weights(runs / "noema-2")) == 0.0


@pytest.mark.parametrize("many", ["projector-2", "projector-sharded-2"])
def test_networks_of_losses_train_like_on_one_process(runs, many):
    assert (world_of(runs / "projector-1"), world_of(runs / many)) == (1, 2)
    for file in ("tokenizer", "projector", "probe", "optimizer.projector", "ema.tokenizer"):
        one, two = (weights(runs / name, file) for name in ("projector-1", many))
        assert farthest(one, two) < 1e-5, file
    moved = farthest(weights(runs / many, "projector", 4), weights(runs / many, "projector", 12))
    assert moved > 1e-4


def test_any_layout_goes_on_from_any_other(runs, tmp_path):
    """Sharded -> one process, one -> sharded, sharded -> replicated, from step 4 to step 12."""
    for source, target in (("sharded-2", "a"), ("gan-1", "b"), ("sharded-2", "c")):
        shutil.copytree(runs / source, tmp_path / source, dirs_exist_ok=True)
        rewound(tmp_path / source, target)
    launch(tmp_path, 1, {"a": gan_tree()})
    launch(tmp_path, 2, {"b": gan_tree() | {"sharding": "full"}, "c": gan_tree()})
    for target in "abc":
        for file in ("tokenizer", "ema.tokenizer", "discriminator", "optimizer.tokenizer"):
            assert farthest(weights(runs / "gan-1", file), weights(tmp_path / target, file)) < 1e-5
    assert [world_of(tmp_path / name) for name in "abc"] == [1, 2, 2]


def seen_by(folder: Path) -> list[list[int]]:
    """The samples of each process, in order."""
    return [[int(i) for i in file.read_text().split()] for file in sorted(folder.iterdir())]


@pytest.mark.parametrize("world", [1, 2, 4])
def test_an_epoch_shows_each_sample_exactly_once(runs, world):
    ranks = seen_by(runs / f"seen-{world}")
    assert [len(rank) for rank in ranks] == [48 // world] * world
    assert sorted(i for rank in ranks for i in rank) == list(range(48))


def test_another_number_of_processes_goes_on_with_the_same_epoch(runs, tmp_path):
    seen = tmp_path / "seen"
    seen.mkdir()
    shutil.copytree(runs / "witness-4", tmp_path / "again")
    for step in (2, 3):
        shutil.rmtree(tmp_path / f"again/checkpoints/step_0000000{step}")
    # Where the witness writes is part of the config that a checkpoint is tied to.
    shutil.rmtree(runs / "seen-4")
    (runs / "seen-4").mkdir()
    launch(tmp_path, 2, {"again": witness_tree(runs / "seen-4") | {"workers": 1}})
    first = [i for rank in seen_by(runs / "seen-1") for i in rank[:16]]
    rest = [i for rank in seen_by(runs / "seen-4") for i in rank]
    assert sorted(first + rest) == list(range(48))


def test_two_processes_train_quickstart_like_one(runs):
    one, two = runs / "quickstart-1", runs / "quickstart-2"
    assert (world_of(one), world_of(two)) == (1, 2)
    one, two = lines(one), lines(two)
    assert len(one) == len(two) == 20
    for a, b in zip(one, two, strict=True):
        assert abs(a["loss"] - b["loss"]) < 1e-5, a["step"]


def test_a_bad_step_of_one_process_is_skipped_by_both(tmp_path):
    tree = gan_tree()
    tree["task"]["losses"].append({"kind": "poison", "steps": [3], "rank": 1})
    launch(tmp_path, 2, {"run": tree})
    alarm = json.loads((tmp_path / "run/alarms.jsonl").read_text())
    assert alarm["step"] == 4 and [rank["process"] for rank in alarm["ranks"]] == [1]
    assert len(alarm["ranks"][0]["samples"]) == 4  # its half of the batch
    assert lines(tmp_path / "run")[-1]["skipped_steps"] == 1


def test_a_process_that_drifts_apart_is_found_at_the_next_checkpoint(tmp_path, write):
    tree = gan_tree()
    tree["task"]["losses"].append({"kind": "drift", "step": 5})
    file = write(tree | {"out": str(tmp_path / "run")})
    done = command(file, processes=2, module="tests.support.launched")
    assert done.returncode != 0
    assert "step 8: tokenizer/" in done.stderr and "is not that of process" in done.stderr
    assert [p.name for p in (tmp_path / "run/checkpoints").iterdir()] == ["step_00000004"]


def started(*args: object, processes: int) -> subprocess.Popen:
    """A launch that goes on until it is told to stop; waits for its first lines of metrics."""
    folder = Path(str(args[-1]).removeprefix("out="))
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    job = subprocess.Popen(
        [*start, "--master_port", str(20000 + os.getpid() % 20000), "-m", "train", *map(str, args)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (folder / "metrics.jsonl").is_file() or len(lines(folder)) < 3:
        assert job.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    return job


def children(job: subprocess.Popen) -> list[int]:
    found = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
    return [int(pid) for pid in found]


def test_a_killed_process_ends_the_job_with_a_message(tmp_path, write):
    file = write({**TINY, "steps": 100_000, "save_every": 5})
    job = started(file, f"out={tmp_path}/run", processes=2)
    killed = time.monotonic()
    os.kill(children(job)[1], signal.SIGKILL)
    out, _ = job.communicate(timeout=60)
    assert time.monotonic() - killed < 60 and job.returncode != 0
    assert "SIGKILL" in out  # the launcher's table
    assert "error: process 0 lost another process at step" in out and "start the same" in out


def test_a_signal_to_the_launcher_saves_first(tmp_path, write):
    file = write({**TINY, "steps": 100_000, "save_every": 0})
    job = started(file, f"out={tmp_path}/run", processes=2)
    job.send_signal(signal.SIGTERM)
    out, _ = job.communicate(timeout=60)
    assert job.returncode != 0 and "stopped by signal 15 after step" in out
    (saved,) = (tmp_path / "run/checkpoints").iterdir()
    assert json.loads((saved / "state.json").read_text())["world"] == 2


def test_processes_that_do_not_find_each_other_stop(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(
        "vistok.train.launch.Accelerator", lambda **_: SimpleNamespace(num_processes=1)
    )
    with pytest.raises(ConfigError, match=r"started 2 processes but 1 found.*torchrun"):
        make_accelerator(validate(TrainConfig, STATEFUL))


def test_a_batch_that_does_not_split_is_one_line(tmp_path, write):
    done = command(write({**STATEFUL, "batch_size": 7}), f"out={tmp_path}/x", processes=2)
    assert done.returncode != 0
    assert "batch_size=7 does not split over 2 processes" in done.stderr


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"ACCELERATE_USE_FSDP": "true"}, "FSDP version 1; set fsdp_version: 2"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed, which vistok does not drive"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, "sharding=none, but the launcher"),
    ],
)
def test_launch_settings_that_cannot_be_followed_are_refused(monkeypatch, env, words):
    from vistok.train.parallel.wrap import wants_sharding

    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=words):
        wants_sharding("none", 2)
