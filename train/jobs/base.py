"""Base class of jobs: work without training steps. They are chosen under `task:` like tasks."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from accelerate import Accelerator
from tqdm import tqdm

from vistok.config import Config, ConfigError
from vistok.config.contract import base_of, required
from vistok.core.rng import Rng
from vistok.core.verbosity import quiet
from vistok.train.signals import StopRequest


@dataclass(frozen=True)
class Context:
    """The surroundings of a job."""

    config: Config
    """The TrainConfig of the run."""
    data: Any
    """The data part, which opens splits; None = the config names none."""
    accelerator: Accelerator
    """The processes that share the work."""
    folder: Path
    """The folder to write into."""


@base_of("task")
class Job:
    """Base of jobs; built as `Job(config, train_set)`, where a run gives None for the data."""

    tokenizer: str | None = None
    """The saved tokenizer that encodes the data, for the plan; None = there is none."""

    caches: bool = False
    """True if the tokens themselves are written, for the plan."""

    @required
    def run(self, context: Context) -> None:
        """Do the work; called once by every process."""
        raise NotImplementedError

    def rows(self, split: str, count: int) -> int:
        """Number of samples of a split of `count` that are written, for the plan."""
        return count


def looked_at(count: int, wanted: int, seed: int) -> list[int]:
    """Places of `wanted` of `count` images, keyed by the seed, ascending: the first ones of a
    folder of classes are all of one class."""
    return sorted(Rng(seed, "looked_at").generator().permutation(count)[:wanted].tolist())


def progress_bar(accelerator: Accelerator, task: str, count: int, done: int) -> tqdm:
    """A bar of `count` images, `done` of them from before, shown by the main process."""
    return tqdm(
        total=count,
        initial=done,
        desc=task,
        unit="img",
        disable=quiet() or not accelerator.is_main_process,
    )


def end_early(bar: tqdm, stop: StopRequest, accelerator: Accelerator, kept: str) -> NoReturn:
    """Exit on a signal, after one line of the main process that says what was kept."""
    bar.close()
    if accelerator.is_main_process:
        print(f"stopped by signal {stop.number}; {kept} are kept: the same command resumes there")
    sys.exit(128 + stop.number)


def on_one_machine(processes: int) -> None:
    """ConfigError for processes on several machines, whose writes to one file could be lost (memory
    maps would overwrite each other's pages)."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    if processes > here:
        raise ConfigError(
            f"{processes} processes on several machines ({here} on this one), but one machine "
            "writes these files; launch on one, e.g. "
            f"torchrun --nproc_per_node {here} -m vistok.train CONFIG"
        )
