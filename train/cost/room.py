"""Memory of a training, estimated before its networks are built for real.

A size that was typed wrong is one line here; later it would be the allocator's error, or the
system would kill the process.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn

from vistok.config import Config, ConfigError
from vistok.train.cost.trace import build_hollow
from vistok.train.monitoring.text import size


def check_room(task: Config, data: Any, device: torch.device, shares: int = 1) -> None:
    """ConfigError unless weights and gradients of the task's networks can fit in memory.

    Args:
        data: the training set, which the task is built with.
        shares: processes over which what is trained is cut (FSDP2); 1 = each holds it whole.
    """
    unstarted = {"init": ()} if getattr(task, "init", ()) else {}
    built = build_hollow(task.model_copy(update=unstarted), data)
    needs = {name: _bytes(module) / shares for name, module in built.modules.items()}
    needed, there = sum(needs.values()), memory_of(device)
    if needed > there:
        largest = max(needs, key=needs.get)
        raise ConfigError(
            f"task: weights and gradients take {size(needed)}, of which {largest} takes "
            f"{size(needs[largest])}, and {'this machine' if device.type == 'cpu' else 'a GPU'} "
            f"has {size(there)} of memory; use smaller networks (--dry-run shows each part)"
        )


def memory_of(device: torch.device) -> int:
    """Bytes of memory of a GPU, or of this machine."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _bytes(module: nn.Module) -> int:
    """Weights, statistics, and a gradient of each weight that is trained."""
    held = sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))
    return held + sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
