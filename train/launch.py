"""One Accelerator for a run, checked against what the launcher started."""

from __future__ import annotations

import os

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from train.config import TrainConfig
from vistok.config import ConfigError


def make_accelerator(config: TrainConfig) -> Accelerator:
    """One Accelerator for this run; the launcher's world size must be the one it sees."""
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
            "other; on CPUs launch with: torchrun --nproc_per_node N -m train CONFIG"
        )
    share = accelerator.num_processes * config.accumulate
    if config.batch_size % share:
        raise ConfigError(
            f"batch_size={config.batch_size} does not split over {accelerator.num_processes} "
            f"processes x accumulate={config.accumulate}; use a multiple of {share}"
        )
    return accelerator
