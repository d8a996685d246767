"""One process without a launcher: what a step that is only timed needs."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


class Alone:
    """The interface of `wrap.Parallel` without Accelerate.

    Args:
        precision: fp32 or bf16. compiled: torch.compile each module.
    """

    def __init__(self, device: torch.device, precision: str, compiled: bool) -> None:
        self.device, self.precision, self.compiled = device, precision, compiled

    def wrap(
        self, module: nn.Module, shard: bool = True, whole: Collection[nn.Parameter] = ()
    ) -> nn.Module:
        return torch.compile(module) if self.compiled else module

    def join(self, wrapped: nn.Module, module: nn.Module) -> None:
        if self.compiled:
            module.compile()

    def micro_batch(self, wrapped: nn.Module, last: bool) -> AbstractContextManager:
        return nullcontext()

    def autocast(self) -> AbstractContextManager:
        if self.precision != "bf16":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def finish(self, wrapped: nn.Module) -> None:
        pass
