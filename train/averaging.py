"""Exponential moving averages of trained modules, over torch's AveragedModel."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel

from vistok.config import ConfigError


class Average:
    """min(decay, (1+t)/(10+t)) of a module's parameters; the first update copies.

    Buffers and untrained codebooks are statistics already: copied, never averaged.
    """

    def __init__(self, module: nn.Module, decay: float, name: str) -> None:
        if has_batch_norm(module):
            raise ConfigError(
                f"ema={decay}: {name} has batch norm, whose statistics belong to the weights that "
                "made them; set ema=null"
            )
        self.source, self.decay, self.updates = module, decay, 0
        self._averaged = AveragedModel(module, multi_avg_fn=self._blend, use_buffers=False)

    @property
    def module(self) -> nn.Module:
        return self._averaged.module

    def restore(self, updates: int) -> None:
        self.updates = updates
        self._averaged.n_averaged.fill_(updates)

    @torch.no_grad()
    def update(self) -> None:
        self._averaged.update_parameters(self.source)
        self.updates += 1
        for mine, theirs in zip(self.module.buffers(), self.source.buffers(), strict=True):
            mine.copy_(theirs)
        for mine, theirs in zip(self.module.parameters(), self.source.parameters(), strict=True):
            if not theirs.requires_grad:
                mine.copy_(theirs)

    @torch.no_grad()
    def _blend(self, averages: list[Tensor], values: list[Tensor], updates: Tensor) -> None:
        t = self.updates  # kept on the host: torch's own counter may lie on a GPU
        torch._foreach_lerp_(averages, values, 1 - min(self.decay, (1 + t) / (10 + t)))


def has_batch_norm(module: nn.Module) -> bool:
    return any(isinstance(part, _BatchNorm) for part in module.modules())
