"""Two runs never share a folder, and a run never writes among the files of something else."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

import pytest

from tests.support.processes import PRELOADED
from tests.support.training import TINY, cache_tree, forget_accelerate, lines
from vistok.config import ConfigError, validate
from vistok.storage.lock import InUseError, folder_lock
from vistok.train.config import TrainConfig
from vistok.train.loop import train

SHORT = {**TINY, "steps": 4}


def test_a_run_in_use_is_refused_and_stays_as_it_is(run, fails):
    folder = run(SHORT)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with folder_lock(folder, "training"):
        for tree in ({**TINY, "steps": 8}, {**SHORT, "resume": "never"}, cache_tree(folder)):
            with fails(InUseError, f"{folder}: in use by process {os.getpid()} on .*; training"):
                run(tree)
        there = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        assert before == {name: x for name, x in there.items() if name != ".lock"}
    assert not (folder / ".lock").exists()
    run({**TINY, "steps": 8})


def test_a_cache_in_use_is_refused(cached, run, fails):
    tokenizer, folder = cached
    with folder_lock(folder, "writing files"), fails(InUseError, "; writing files"):
        run(cache_tree(tokenizer), "tokens")


def test_a_run_that_fails_gives_its_folder_back(run, tmp_path):
    with pytest.raises(ConfigError):
        run({**TINY, "data": None})
    assert not (tmp_path / "run/.lock").exists()


def test_jobs_and_runs_do_not_mix(cached, run, fails):
    tokenizer, tokens = cached
    before = (tokenizer / "config.yaml").read_bytes()
    with fails(ConfigError, f"out: {tokenizer} holds a training run; a job needs another out"):
        run(cache_tree(tokenizer), "tokenizer")
    assert (tokenizer / "config.yaml").read_bytes() == before
    with fails(ConfigError, f"out: {tokens} holds cached tokens"):
        run(SHORT, "tokens")


def _live(tree: dict, out: str) -> None:
    import torch

    torch.set_num_threads(1)
    forget_accelerate()
    train(validate(TrainConfig, {**tree, "out": out}))


@pytest.mark.slow
def test_a_living_run_is_named_and_a_killed_one_is_gone_on_with(run, tmp_path, fails):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOADED])
    long = {**TINY, "steps": 100_000, "save_every": 1, "keep_last": 1, "workers": 1}
    child = context.Process(target=_live, args=(long, str(tmp_path / "run")))
    child.start()
    try:
        deadline = time.monotonic() + 60
        while not list((tmp_path / "run/checkpoints").glob("step_*")):
            assert child.is_alive() and time.monotonic() < deadline
            time.sleep(0.01)
        with fails(InUseError, f"in use by process {child.pid} on "):
            run(SHORT)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.join()
    done = lines(tmp_path / "run")[-1]["step"]
    run({**long, "steps": done + 5, "workers": 0})  # its worker may still live
    assert lines(tmp_path / "run")[-1]["step"] == done + 5
