"""Exponential moving averages of trained modules, over torch's AveragedModel."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel

from vistok import distributed
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
        self._parts: list[Tensor] | None = None  # this rank's shares, once the module is sharded

    @property
    def module(self) -> nn.Module:
        """The averaged module, whole; of a sharded one every rank must ask for it."""
        if self._parts is not None:
            self._gather()
        return self._averaged.module

    def state_dict(self) -> dict[str, Tensor]:
        """Of the whole averaged module; of a sharded one every rank must ask for it."""
        return self.module.state_dict()

    def copy(self) -> None:
        """Take over the source's weights as they are, while both are whole."""
        self._averaged.module.load_state_dict(self.source.state_dict())

    def restore(self, updates: int) -> None:
        self.updates = updates
        self._averaged.n_averaged.fill_(updates)

    def shard(self) -> None:
        """The source was sharded: from now on each rank averages its share.

        The whole module waits on the CPU, and is filled when somebody asks for it.
        """
        pairs = zip(self._averaged.module.parameters(), self.source.parameters(), strict=True)
        with torch.no_grad():
            self._parts = [
                distributed.local(distributed.shard_like(mine.detach(), theirs)).clone()
                for mine, theirs in pairs
            ]
        self._averaged.to("cpu")

    @torch.no_grad()
    def update(self) -> None:
        if self._parts is None:
            self._averaged.update_parameters(self.source)
        else:
            theirs = [distributed.local(p.detach()) for p in self.source.parameters()]
            if self.updates:
                self._blend(self._parts, theirs, None)
            else:
                torch._foreach_copy_(self._parts, theirs)
        self.updates += 1
        buffers = zip(self._averaged.module.buffers(), self.source.buffers(), strict=True)
        averaged = self._averaged.module.parameters() if self._parts is None else self._parts
        frozen = [
            (mine, distributed.local(theirs))
            for mine, theirs in zip(averaged, self.source.parameters(), strict=True)
            if not theirs.requires_grad
        ]
        for mine, theirs in (*buffers, *frozen):
            mine.copy_(theirs)

    @torch.no_grad()
    def _gather(self) -> None:
        module = self._averaged.module.to(next(iter(self._parts)).device)
        trios = zip(module.parameters(), self._parts, self.source.parameters(), strict=True)
        for mine, part, model in trios:
            mine.copy_(distributed.join_like(part, model))

    @torch.no_grad()
    def _blend(self, averages: list[Tensor], values: list[Tensor], updates: object) -> None:
        t = self.updates  # kept on the host: torch's own counter may lie on a GPU
        torch._foreach_lerp_(averages, values, 1 - min(self.decay, (1 + t) / (10 + t)))


def has_batch_norm(module: nn.Module) -> bool:
    return any(isinstance(part, _BatchNorm) for part in module.modules())
