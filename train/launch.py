"""One Accelerator for a run, checked against what the launcher started; and its other processes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, gather_object

from vistok.config import ConfigError
from vistok.config.errors import UserError
from vistok.data.base import stated
from vistok.data.order import check_split
from vistok.runtime.precision import has_bf16
from vistok.train.config import TrainConfig
from vistok.train.environment import check_environment
from vistok.train.parallel.wrap import wants_sharding
from vistok.train.tasks.base import check_sides

# How gloo and NCCL say, among much else, that somebody is gone.
_LOST = ("closed by peer", "Connection reset", "Broken pipe", "Timed out", "NCCL", "Socket")


class LostProcessError(UserError, ConnectionError):
    """Another process of the run is gone."""


@contextmanager
def one_line_losses(accelerator: Accelerator, where: Callable[[], str]) -> Iterator[None]:
    """Another process that died becomes a LostProcessError of one line.

    Args:
        where: what the run was doing, and what to do now.
    """
    try:
        yield
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        if accelerator.num_processes == 1 or not any(word in reason for word in _LOST):
            raise
        raise LostProcessError(
            f"process {accelerator.process_index} lost another process {where()} ({reason[:200]})"
        ) from error


def slow_precision(config: TrainConfig, device: torch.device) -> str | None:
    """A warning, if the run computes in bf16 what this device can only imitate."""
    found = [f"{key}=bf16" for key, value in config.precisions.items() if value == "bf16"]
    if not found or has_bf16(device):
        return None
    return (
        f"{', '.join(found)}: this {device.type.upper()} has no bf16 "
        f"instructions, products can take 100 times as long as in fp32; use auto or fp32"
    )


def check_start(config: TrainConfig) -> None:
    """ConfigError for what a config and the environment alone show to be wrong, before anything is
    opened: launch settings that cannot be followed, data of other sides than the task takes."""
    check_environment(config)
    wants_sharding(config.sharding, int(os.environ.get("WORLD_SIZE", "1")))
    sides = getattr(config.task, "sides", None)
    several = getattr(config.task, "frame_rates", None) is not None  # sides of any frame rate
    if sides is not None and config.data is not None and not several:
        check_sides(stated(config.data), sides, "this tokenizer")


def make_accelerator(config: TrainConfig) -> Accelerator:
    """One Accelerator for this run; the launcher's world size must be the one it sees."""
    check_start(config)
    # torch 2.14 renames the flag, Accelerate does not know the new name yet.
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
    on_gpu = torch.cuda.is_available()
    accelerator = Accelerator(
        cpu=not on_gpu,
        mixed_precision="bf16" if config.precision == "bf16" else "no",
        log_with=list(config.trackers) or None,
        project_dir=config.folder,
        # Our buffers are equal on all ranks by construction; broadcasting them costs time.
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != launched:
        raise ConfigError(
            f"the launcher started {launched} processes but {accelerator.num_processes} found each "
            "other; on CPUs launch with: torchrun --nproc_per_node N -m vistok.train CONFIG"
        )
    check_split(config.batch_size, accelerator.num_processes, config.accumulate)
    first, *others = gather_object([config.precisions])
    for process, theirs in enumerate(others, 1):
        if theirs != first:
            raise ConfigError(
                f"precision: auto is {first} on process 0 and {theirs} on process {process}; say "
                "fp32 or bf16 for machines that differ"
            )
    return accelerator
