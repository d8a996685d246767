"""RunState: everything that a checkpoint saves of a run and restores into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from vistok.train.config import TrainConfig
from vistok.train.optim.averaging import Average
from vistok.train.parallel.wrap import share_batch_norm
from vistok.train.tasks.base import Buffers, Task


@dataclass
class RunState:
    """The state of a run between two steps."""

    modules: Mapping[str, nn.Module]
    """The task's bare modules; the first may be sharded."""
    averages: Mapping[str, Average] = field(default_factory=dict)
    """Moving averages of some of them."""
    twins: Mapping[str, Average] = field(default_factory=dict)
    """Whole copies of sharded modules without an average; not saved, since they are copies."""
    buffers: Buffers = field(default_factory=Buffers)
    """The task's; `buffers.saved` is saved."""
    optimizers: Mapping[str, list[torch.optim.Optimizer]] = field(default_factory=dict)
    """Optimizers by name of module; empty until the modules are wrapped."""
    step: int = 0
    """Optimizer steps done."""
    skipped: int = 0
    """Steps that were not finite."""
    stream: dict[str, Any] | None = None
    """Lanes of a streamed data set and their positions; None = samples are read by index."""


def make_state(
    config: TrainConfig, task: Task, accelerator: Accelerator, sharded: bool
) -> RunState:
    """A run before its first step: the task's modules on the device, and their averages."""
    device = accelerator.device
    modules = {name: module.to(device) for name, module in task.modules.items()}
    for module in (*task.buffers.helpers, *task.buffers.saved.values()):
        module.to(device)
    for name, module in modules.items():
        share_batch_norm(name, module, accelerator)
    averages: dict[str, Average] = {}
    if config.ema is not None:
        averages = {name: Average(modules[name], config.ema, name) for name in task.ema}
    # A sharded module cannot be evaluated as it is: ranks look at different numbers of samples.
    first = task.phases[0].module
    twins: dict[str, Average] = {}
    if sharded and first not in averages:
        twins = {first: Average(modules[first], 0.0, first)}
    return RunState(modules, averages, twins, task.buffers)
