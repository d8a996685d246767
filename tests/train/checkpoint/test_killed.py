"""SIGKILL at random moments, and disks that fill up: nothing that was saved is ever lost."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.support.processes import PRELOADED, run
from tests.support.training import ROOT, TINY, command
from vistok.train.checkpoint import files as checkpoint

pytestmark = pytest.mark.slow

# Saves take most of the time, so that most kills fall into one.
SAVING = {**TINY, "steps": 120, "save_every": 1, "keep_last": 2, "warmup": 0}


def go(tree: dict, out: str) -> None:
    """A child's whole life: the run, from wherever the one before it was killed."""
    import torch

    from vistok.config import validate
    from vistok.train.config import TrainConfig
    from vistok.train.cost import throughput
    from vistok.train.loop import train

    torch.set_num_threads(1)
    throughput._counted = lambda key: ()  # see `count_no_flop` of tests.support.training
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    train(validate(TrainConfig, {**tree, "out": out}))


def test_twenty_kills_lose_nothing(tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOADED])

    def start(name: str):
        child = context.Process(target=go, args=(SAVING, str(tmp_path / name)))
        child.start()
        return child

    calm = start("calm")
    calm.join(120)
    assert calm.exitcode == 0
    rng, kills, reached = np.random.default_rng(0), 0, 0
    saved = tmp_path / "killed" / "checkpoints"
    while kills < 20:
        child = start("killed")
        before = reached
        while child.is_alive() and not (
            saved.is_dir() and [c for c in checkpoint.complete(saved) if _step(c) > before]
        ):
            time.sleep(0.002)
        time.sleep(float(rng.uniform(0.0, 0.08)))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL, "the run ended before it was killed 20 times"
        kills += 1
        newest = checkpoint.find(saved, "auto")  # verified to the last byte
        assert newest is not None and _step(newest) >= before
        reached = _step(newest)
    last = start("killed")
    last.join(120)
    assert last.exitcode == 0
    for name in ("calm", "killed"):
        assert _step(checkpoint.find(tmp_path / name / "checkpoints", "auto")) == SAVING["steps"]
    folder = "checkpoints/step_00000120"
    for file in (tmp_path / "calm" / folder).iterdir():  # weights, averages, optimizer, counters
        other = tmp_path / "killed" / folder / file.name
        assert file.read_bytes() == other.read_bytes(), file.name
    model = "model/model.safetensors"
    assert (tmp_path / "calm" / model).read_bytes() == (tmp_path / "killed" / model).read_bytes()


def _step(path) -> int:
    return checkpoint.step_of(path)


def test_a_full_disk_leaves_the_old_checkpoint_and_the_run_goes_on_after(tmp_path, write):
    """The file system's own refusal, by a limit on the size of a file."""
    file = write({**TINY, "steps": 4, "save_every": 4})
    out = f"out={tmp_path}/run"
    assert command(file, out).returncode == 0
    saved = tmp_path / "run/checkpoints"
    good = {path.name: path.read_bytes() for path in (saved / "step_00000004").iterdir()}
    biggest = max(len(data) for data in good.values())
    # Everything of the run but the largest files of a checkpoint still fits.
    wrapper = tmp_path / "small.py"
    wrapper.write_text(
        "import resource, runpy, sys\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({biggest - 1000}, resource.RLIM_INFINITY))\n"
        "sys.argv = ['train', *sys.argv[1:]]\n"
        "runpy.run_module('train', run_name='__main__')\n"
    )
    full = run(str(wrapper), file, out, "steps=8")
    assert full.returncode == 1, full.stderr[-2000:]
    (line,) = [text for text in full.stderr.splitlines() if "error: " in text]
    assert "step_00000008: cannot be written" in line and "start the same command again" in line
    assert [path.name for path in saved.iterdir()] == ["step_00000004"]
    assert good == {path.name: path.read_bytes() for path in (saved / "step_00000004").iterdir()}
    again = command(file, out, "steps=8")
    assert again.returncode == 0 and "resumed from" in again.stdout
    assert (saved / "step_00000008").is_dir()


# One process that fills its own small disk, twice, and makes space again.
ON_A_SMALL_DISK = """
import os, shutil, sys
from pathlib import Path
import torch
from click.testing import CliRunner
from accelerate.state import AcceleratorState, GradientState, PartialState
from vistok.train.checkpoint import files as checkpoint
from vistok.train.__main__ import main

torch.set_num_threads(1)
disk, config = Path(sys.argv[1]), sys.argv[2]

def go(steps):
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    result = CliRunner().invoke(main, [config, f"out={disk}/run", f"steps={steps}"])
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    errors = [line for line in result.stderr.splitlines() if "error: " in line]
    assert len(errors) == (result.exit_code == 1), result.output
    return errors[0].partition("error: ")[2] if errors else ""

def fill(spare):
    with open(disk / "filler", "ab") as file:
        try:
            while shutil.disk_usage(disk).free > spare:
                file.write(bytes(min(4096, shutil.disk_usage(disk).free - spare)))
                file.flush()
        except OSError:
            pass

saved = disk / "run/checkpoints"
assert go(4) == ""
old = {path.name: path.read_bytes() for path in (saved / "step_00000004").iterdir()}
metrics = (disk / "run/metrics.jsonl").read_bytes()

def same():
    assert [path.name for path in saved.iterdir()] == ["step_00000004"], list(saved.iterdir())
    assert old == {path.name: path.read_bytes() for path in (saved / "step_00000004").iterdir()}
    checkpoint.verify(saved / "step_00000004")
    assert (disk / "run/metrics.jsonl").read_bytes().startswith(metrics)

fill(0)
print("full:", go(8)); same()
(disk / "filler").unlink()
fill(2**19)
print("short:", go(8)); same()
(disk / "filler").unlink()
looked = checkpoint._check_space
checkpoint._check_space = lambda *given: (looked(*given), fill(0))
print("meanwhile:", go(8)); same()
checkpoint._check_space = looked
(disk / "filler").unlink()
print("after:", go(8))
checkpoint.verify(saved / "step_00000008")
"""


def test_a_small_tmpfs_that_is_full_and_is_emptied(tmp_path, write):
    disk, script = tmp_path / "disk", tmp_path / "script.py"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=8m tmpfs {disk}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a tmpfs (unshare -rm)")
    script.write_text(ON_A_SMALL_DISK)
    file = write({**TINY, "steps": 4, "save_every": 4})
    inside = ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$@"', "sh"]
    done = subprocess.run(
        [*inside, sys.executable, str(script), str(disk), str(file)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert "cannot be written (No space left on device)" in said["full"]
    assert "step_00000008: cannot be written (it needs" in said["short"]
    assert "step_00000008: cannot be written" in said["meanwhile"]
    assert "No space left on device" in said["meanwhile"] and said["after"] == ""
    for how in ("full", "short", "meanwhile"):
        assert "start the same command again" in said[how]
