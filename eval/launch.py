"""The process group of an evaluation: one process, or those that torchrun started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from vistok.core.errors import InputError


@contextmanager
def process_group(device: str | None) -> Iterator[tuple[torch.device, bool]]:
    """(this process's device, whether it is the first rank); ValueError for an unusable device."""
    chosen = _device(device)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 or dist.is_initialized():
        yield chosen, not dist.is_initialized() or dist.get_rank() == 0
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        if dist.get_world_size() != world:
            raise InputError(
                f"the launcher started {world} processes but {dist.get_world_size()} found each "
                "other; launch with: torchrun --nproc_per_node N -m vistok.eval RUN..."
            )
        yield chosen, dist.get_rank() == 0
    finally:
        dist.destroy_process_group()


def _device(name: str | None) -> torch.device:
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device={name}: unknown; expected cpu, cuda or cuda:0") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise InputError(f"device={name}: this machine has no usable GPU; use device=cpu")
        device = torch.device("cuda", local if device.index is None else device.index)
    return device
