"""Training by the train command's own way, from within an evaluation: `vistok train FILE`.

A process of its own, since training moves what an evaluation must not lose (torch's generator,
signals, accelerate's state). An interrupted training resumes from its newest checkpoint. Two
trainings of one folder never run at once: the lock of the folder is lent to the child, so that even
one whose parent was killed holds it for as long as it lives.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import vistok
from vistok.config import plugin_words, to_yaml
from vistok.config.bounded import read_json
from vistok.config.errors import UserError
from vistok.config.yaml_files import read_plain_yaml
from vistok.storage.hub import WEIGHTS
from vistok.storage.lock import FolderLock, folder_lock
from vistok.storage.trained import unlike_its_run
from vistok.storage.weights import sha256
from vistok.train.config import TrainConfig

ROOT = Path(vistok.__file__).parents[1]  # holds the package, installed or not
_TAIL = 4096  # bytes of the child's output among which its error is looked for
_LAUNCHER = ("TORCHELASTIC", "MASTER_", "RANK", "LOCAL_", "GROUP_", "ROLE_", "WORLD_SIZE")


class TrainingError(UserError, ValueError):
    """A training that did not come to its end; the message is one line."""


def finished(config: TrainConfig) -> bool:
    """True if exactly this run came to its end: its model, of this config and so many steps."""
    folder = Path(config.folder)
    weights = folder / "model" / WEIGHTS
    if not weights.is_file():
        return False
    try:
        told = read_json(folder / "summary.json")
        kept = read_plain_yaml(folder / "config.yaml")
    except (OSError, ValueError):
        return False
    # A run that was begun on top of a finished one has its own config, and the model of that.
    same = kept == config.model_dump(mode="json")
    told_steps = told.get("steps") if isinstance(told, dict) else None
    return same and told_steps == config.steps and unlike_its_run(folder, sha256(weights)) is None


def train(config: TrainConfig, on_cpu: bool = False) -> None:
    """Run (or resume) a training; TrainingError unless it ends well.

    Of several ranks only the first may call this.

    Args:
        on_cpu: hide this machine's GPUs from it.
    """
    folder = Path(config.folder)
    folder.mkdir(parents=True, exist_ok=True)
    with folder_lock(folder, "training for vistok eval", wait=True) as lock:
        asked = folder / ".asked.yaml"
        asked.write_text(to_yaml(config), encoding="utf-8")
        command = [sys.executable, "-m", "vistok.train", str(asked), *plugin_words()]
        code, tail = _run(command, lock, on_cpu)
        asked.unlink(missing_ok=True)
    if code:
        reason = f"it ended with code {code}"
        for line in tail.splitlines():
            reason = line.removeprefix("error: ") if line.startswith("error: ") else reason
        raise TrainingError(f"training of {folder}: {reason} (the same command resumes it)")


def _run(command: list[str], lock: FolderLock, on_cpu: bool) -> tuple[int, str]:
    """(exit code, end of the output); the output goes to stderr, since tables go to stdout."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(_LAUNCHER)}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), env.get("PYTHONPATH"))))
    env["PYTHONUNBUFFERED"] = "1"
    env |= lock.lend()
    if on_cpu:
        env["CUDA_VISIBLE_DEVICES"] = ""
    child = subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=(lock.file,)
    )
    tail = b""
    with _forwarding(child):
        while chunk := os.read(child.stdout.fileno(), 65536):
            os.write(2, chunk)
            tail = (tail + chunk)[-_TAIL:]
        code = child.wait()
    return code, tail.decode("utf-8", "replace").replace("\r", "\n")


@contextmanager
def _forwarding(child: subprocess.Popen) -> Iterator[None]:
    """SIGTERM reaches the child, which saves; whatever ends the parent ends the child too."""
    here = threading.current_thread() is threading.main_thread()

    def pass_on(number: int, _: object) -> None:
        child.terminate()
        child.wait()
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, pass_on) if here else None
    try:
        yield
    finally:
        if here:
            signal.signal(signal.SIGTERM, before)
        if child.poll() is None:
            child.terminate()
            child.wait()
        child.stdout.close()
