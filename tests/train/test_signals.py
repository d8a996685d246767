"""SIGTERM and SIGINT at any moment of the process: 143 or 130, one line, never a traceback."""

from __future__ import annotations

import multiprocessing
import os
import pkgutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.processes import PRELOADED
from tests.support.training import ROOT, TINY
from vistok.train.checkpoint import files as checkpoint
from vistok.train.signals import StopRequest, install


@pytest.fixture
def heard():
    """Signals of this process go to a request, as in a run."""
    request = StopRequest()
    with request.listening():
        yield request


def soon(condition, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_request_and_so_is_the_same_one_again(heard, number):
    for _ in range(3):  # a launcher's, its group's, and one more
        os.kill(os.getpid(), number)
    soon(lambda: heard.number is not None)
    assert heard.number == number


def test_a_request_is_not_lost_while_ranks_agree(heard, monkeypatch):
    from vistok.runtime import distributed

    def late(flag):
        os.kill(os.getpid(), signal.SIGTERM)
        soon(lambda: heard.number is not None)
        return flag

    monkeypatch.setattr(distributed, "agree", late)
    assert not heard.agreed()
    monkeypatch.undo()
    assert heard.agreed() and heard.number == signal.SIGTERM


def test_a_second_ctrl_c_is_not_waited_for_but_a_second_sigterm_is(monkeypatch):
    request, clock = StopRequest(), [100.0]
    monkeypatch.setattr("vistok.train.signals.time.monotonic", lambda: clock[0])
    assert not request.note(signal.SIGTERM)
    clock[0] += 60
    assert not request.note(signal.SIGTERM)
    assert request.note(signal.SIGINT) and request.number == signal.SIGTERM


@pytest.mark.parametrize(
    ("end", "code", "last"),
    [
        ("raise ConnectionError('lost')", 1, "said"),
        ("sys.exit(143)", 143, "stopped by signal 15 while it was ending"),
        ("pass", 143, "stopped by signal 15 while it was ending"),
    ],
)
def test_an_error_is_said_before_a_signal_ends_the_process(end, code, last):
    """As when a launcher ends the process that has just found out that another one is gone."""
    script = f"""
import os, signal, sys, time
from train import signals
signals.install()
try:
    with signals.StopRequest().listening():
        {end}
finally:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.5)
    print("said", file=sys.stderr)
    os._exit(1)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (code, last)


def test_handlers_are_given_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    install()()
    with StopRequest().listening():
        assert signal.getsignal(signal.SIGTERM) is not before[0]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


# -- whole processes --------------------------------------------------------------------------

LONG = {**TINY, "steps": 4, "save_every": 2, "validate_every": 2}
# Where the signal comes, and what the last line says.
MOMENTS = {
    "vistok.train.config.TrainConfig.model_validate": "before the first step, with nothing to save",
    "vistok.train.loop.make_accelerator": "before the first step, with nothing to save",
    "vistok.train.loop.Loop._begin": "before the first step, with nothing to save",
    "vistok.train.loop.Loop._train_step": "after step 1",
    "vistok.train.checkpoint.files._write": "after step 2",
    "vistok.train.tasks.tokenizer.TokenizerTask.validate": "after step 2",
    "vistok.train.tasks.tokenizer.TokenizerTask.export": "the run is complete",
    "vistok.train.monitoring.logger.Logger.close": "while it was ending",
}


def live(file: str, out: str, moment: str, number: int, group: bool, *args: str) -> None:
    """A child's whole life, as `vistok train`; at `moment` it gets the signal."""
    from vistok.train import signals

    os.setsid()
    signals.install()
    said = os.open(f"{out}.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(said, 1)
    os.dup2(said, 2)
    owner, _, name = moment.rpartition(".")
    owner = pkgutil.resolve_name(owner)
    real, sent = getattr(owner, name), []

    def struck(*args, **kwargs):
        if not sent:
            sent.append(os.killpg(0, number) if group else os.kill(os.getpid(), number))
            time.sleep(0.1)
        return real(*args, **kwargs)

    setattr(owner, name, struck)
    from vistok.train.__main__ import main

    sys.stdout = open(1, "w", closefd=False)
    sys.stderr = open(2, "w", closefd=False)
    main([file, f"out={out}", *args])


@pytest.fixture(scope="module")
def context():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOADED])
    return context


@pytest.fixture
def killed(context, write, tmp_path):
    """killed(moment, number) -> (exit code, what was said, the run's folder)."""

    def go(moment, number, *args, group=False):
        out = tmp_path / "run"
        given = (str(write(LONG)), str(out), moment, number, group, *args)
        child = context.Process(target=live, args=given)
        child.start()
        child.join(60)
        text = Path(f"{out}.txt").read_text()
        assert "Aborted" not in text and "Traceback" not in text, text[-2000:]
        return child.exitcode, text, out

    return go


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "number"),
    [(moment, (signal.SIGTERM, signal.SIGINT)[i % 2]) for i, moment in enumerate(MOMENTS)],
)
def test_any_moment_ends_with_the_code_and_one_line(killed, moment, number):
    code, text, out = killed(moment, number)
    assert code == 128 + number, text
    said = [line for line in text.splitlines() if "stopped by signal" in line]
    assert len(said) == 1 and said[0].endswith(MOMENTS[moment]), text
    step = {"after step 1": 1, "after step 2": 2}.get(MOMENTS[moment])
    if step is not None:
        assert checkpoint.step_of(checkpoint.find(out / "checkpoints", "auto")) == step
    assert (out / "model").is_dir() == (moment in list(MOMENTS)[-2:])


@pytest.mark.slow
def test_workers_outlive_a_signal_to_the_whole_group(killed):
    moment = "vistok.train.loop.Loop._train_step"
    code, text, out = killed(moment, signal.SIGTERM, "workers=2", group=True)
    assert code == 143, text
    assert "after step 1" in text
    assert checkpoint.step_of(checkpoint.find(out / "checkpoints", "auto")) == 1


@pytest.mark.slow
def test_an_interrupted_cache_keeps_its_rows(killed, run, write, tmp_path):
    tokenizer = run({**TINY, "steps": 1, "save_every": 0, "warmup": 0}, "tok")
    task = f"task={{kind: cache, tokenizer: {tokenizer}}}"
    moment = "vistok.train.jobs.cache.to_device"
    code, text, out = killed(moment, signal.SIGTERM, task, "batch_size=8")
    assert code == 143 and "; 8 of 100 rows of train are kept" in text, text
    assert '"written": 8' in (out / "train/meta.json").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_while_python_imports(write, number, code):
    process = subprocess.Popen(
        [sys.executable, "-m", "train", str(write(TINY))],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    soon(lambda: "libtorch" in Path(f"/proc/{process.pid}/maps").read_text())
    process.send_signal(number)
    text = process.communicate(timeout=60)[0]
    assert process.returncode == code
    assert text == f"stopped by signal {int(number)} before the first step, with nothing to save\n"


@pytest.mark.slow
def test_torchrun_and_its_group(write, tmp_path):
    """torchrun passes the signal on, and the group has had it already; its own code is 1."""
    out = tmp_path / "run"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"),
            *("--master_port", str(20000 + os.getpid() % 20000), "-m", "train"),
            *(str(write(TINY)), f"out={out}", "steps=100000", "save_every=0"),
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    metrics = out / "metrics.jsonl"
    soon(lambda: metrics.exists() and metrics.stat().st_size, 90)
    os.killpg(process.pid, signal.SIGTERM)
    text = process.communicate(timeout=60)[0]
    assert "Aborted" not in text and "stopped by signal 15 after step" in text, text[-3000:]
    assert process.returncode == 1 and "SignalException" in text  # torchrun's own ending
    assert checkpoint.find(out / "checkpoints", "auto") is not None


def test_a_worker_obeys_its_parent_alone(context):
    from vistok.data.loading import workers

    ready = context.Event()
    worker = context.Process(target=_work, args=(workers.begin, ready))
    worker.start()
    assert ready.wait(30)
    stranger = subprocess.run(["kill", "-TERM", str(worker.pid)])
    assert stranger.returncode == 0
    worker.join(0.5)
    assert worker.is_alive()
    worker.terminate()
    worker.join(10)
    assert worker.exitcode == 0


def _work(begin, ready) -> None:
    begin(0)
    ready.set()
    time.sleep(60)
