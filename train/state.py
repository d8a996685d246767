"""RunState: everything that a checkpoint saves of a run and restores into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from vistok.train.optim.averaging import Average
from vistok.train.tasks.base import Buffers


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
