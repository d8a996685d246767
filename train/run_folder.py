"""The folder of a run: made, locked, and never that of something else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from accelerate import Accelerator

from vistok.config import ConfigError
from vistok.storage.lock import FolderLock, folder_lock
from vistok.train.parallel.main_process import by_main


@contextmanager
def run_folder(accelerator: Accelerator, folder: Path, is_job: bool) -> Iterator[FolderLock | None]:
    """Make a folder and hold its lock, in the main process; None in the others.

    In every process: InUseError if another process has the folder; ConfigError if a job would write
    over a training run, or a run among the files of a job.
    """
    held: list[FolderLock] = []
    with ExitStack() as stack:

        def take() -> None:
            folder.mkdir(parents=True, exist_ok=True)
            purpose = "writing files" if is_job else "training"
            held.append(stack.enter_context(folder_lock(folder, purpose)))
            _check(folder, is_job)

        by_main(accelerator, take)
        yield held[0] if held else None


def _check(folder: Path, is_job: bool) -> None:
    if is_job and ((folder / "checkpoints").exists() or (folder / "metrics.jsonl").exists()):
        raise ConfigError(f"out: {folder} holds a training run; a job needs another out")
    if not is_job and (folder / "train" / "meta.json").exists():
        raise ConfigError(f"out: {folder} holds cached tokens; a training run needs another out")
