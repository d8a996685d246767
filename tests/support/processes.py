"""Processes of tests that begin at once: forks of one process that has imported torch and vistok.

A fresh process takes seconds to import them, more than a tiny training lasts. Each fork is a real
process: it has its own environment, folder, output files, signals and exit code, and several of
them form a process group exactly as under torchrun, whose variables they get. That the commands
work without a fork, and under torchrun itself, other tests show.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PRELOADED = "tests.support.preloaded"
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([PRELOADED])
_LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Job:
    """Running processes of one command; `wait` gives what subprocess.run would."""

    def __init__(self, module: str, args: Sequence[str], folder: Path, envs: list[dict]) -> None:
        self.args = ["-m", module, *args]
        self._place = tempfile.TemporaryDirectory()
        self.processes = []
        for rank, env in enumerate(envs):  # own files: lines of two processes never interleave
            out, err = (str(Path(self._place.name, f"{name}.{rank}")) for name in ("out", "err"))
            given = (module, list(args), str(folder), env, out, err)
            self.processes.append(_CONTEXT.Process(target=_main, args=given))
            self.processes[-1].start()

    def _said(self, name: str) -> str:
        """What all processes wrote to "out" or "err", in the order of their ranks."""
        files = [Path(self._place.name, f"{name}.{rank}") for rank in range(len(self.processes))]
        return "".join(file.read_text("utf-8") for file in files if file.exists())

    @property
    def pid(self) -> int:
        return self.processes[0].pid

    def poll(self) -> int | None:
        """The exit code once all have ended, of the first that failed; None before."""
        codes = [process.exitcode for process in self.processes]
        if None in codes:
            return None
        return next((code for code in codes if code), 0)

    def send_signal(self, number: int) -> None:
        for process in self.processes:
            if process.exitcode is None:
                os.kill(process.pid, number)

    def wait(self, timeout: float = 300) -> subprocess.CompletedProcess:
        """Wait for all; as under torchrun, one that fails ends the others."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if any(process.exitcode for process in self.processes):
                deadline = min(deadline, time.monotonic() + 15)
            if time.monotonic() > deadline:
                self.send_signal(signal.SIGKILL)
                if not any(process.exitcode for process in self.processes):
                    raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(0.01)
        return subprocess.CompletedProcess(
            self.args, self.poll(), self._said("out"), self._said("err")
        )


def start(
    module: str,
    *args: object,
    processes: int = 1,
    folder: Path = ROOT,
    env: Mapping[str, str] | None = None,
) -> Job:
    """`python -m module args` (or `python module.py args`) in `folder`, by some processes."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
    env = {key: value for key, value in env.items() if key not in _LAUNCHER}
    envs = [env]
    if processes > 1:
        group = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        group |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _free_port()}
        envs = [group | {"RANK": i, "LOCAL_RANK": i} for i in range(processes)]
        envs = [env | {key: str(value) for key, value in ranked.items()} for ranked in envs]
    return Job(module, [str(arg) for arg in args], folder, envs)


def run(module: str, *args: object, **settings) -> subprocess.CompletedProcess:
    """`start`, and wait for the end."""
    return start(module, *args, **settings).wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _main(module: str, args: list[str], folder: str, env: dict, out: str, err: str) -> None:
    """The fork's own life, as if it had been started from a shell."""
    for number, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    sys.path.insert(0, folder)
    sys.argv = [module, *args]
    try:
        if module.endswith(".py"):
            runpy.run_path(module, run_name="__main__")
        else:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves them out
