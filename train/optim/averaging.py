"""Exponential moving averages of trained modules.

Not over torch's AveragedModel: it copies its counter to the device in each update, and a GPU has to
finish its work for that (torch 2.14). Averages are the same batched `lerp` here, in one call.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vistok.config import ConfigError
from vistok.frozen.network import Frozen
from vistok.runtime import distributed


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
        self._module = copy.deepcopy(module)
        self._parts: list[Tensor] | None = None  # this rank's shares, once the module is sharded

    @property
    def module(self) -> nn.Module:
        """The averaged module, whole; of a sharded one every rank must ask for it."""
        if self._parts is not None:
            self._gather()
        return self._module

    def state_dict(self) -> dict[str, Tensor]:
        """The state of the whole averaged module; of a sharded one every rank must ask for it."""
        return self.module.state_dict()

    def copy(self) -> None:
        """Take over the source's weights as they are, while both are whole."""
        self._module.load_state_dict(self.source.state_dict())

    def shard(self) -> None:
        """The source was sharded: from now on each rank averages its share.

        The whole module waits on the CPU, and is filled when somebody asks for it.
        """
        pairs = zip(self._module.parameters(), self.source.parameters(), strict=True)
        with torch.no_grad():
            self._parts = [
                distributed.local(distributed.shard_like(mine.detach(), theirs)).clone()
                for mine, theirs in pairs
            ]
        self._module.to("cpu")

    @torch.no_grad()
    def update(self) -> None:
        averages = [*self._module.parameters()] if self._parts is None else self._parts
        # Buffers of a whole module that waits on the CPU are looked at when it is filled.
        trained, copied = [], [] if self._parts is not None else self._buffers()
        for mine, model in zip(averages, self.source.parameters(), strict=True):
            pairs = trained if model.requires_grad and self.updates else copied
            pairs.append((mine, distributed.local(model.detach())))
        if trained:
            t = self.updates
            share = 1 - min(self.decay, (1 + t) / (10 + t))
            torch._foreach_lerp_(*map(list, zip(*trained, strict=True)), share)
        if copied:
            torch._foreach_copy_(*map(list, zip(*copied, strict=True)))
        self.updates += 1

    @torch.no_grad()
    def _gather(self) -> None:
        module = self._module.to(next(iter(self._parts)).device)
        trios = zip(module.parameters(), self._parts, self.source.parameters(), strict=True)
        for mine, part, model in trios:
            mine.copy_(distributed.join_like(part, model))
        for mine, theirs in self._buffers():
            mine.copy_(theirs)

    def _buffers(self) -> list[tuple[Tensor, Tensor]]:
        return [*zip(self._module.buffers(), self.source.buffers(), strict=True)]


def has_batch_norm(module: nn.Module) -> bool:
    """True for batch norm that trains; that of a frozen network inside never changes."""
    networks = [part for part in module.modules() if isinstance(part, Frozen)]
    frozen = {part for network in networks for part in network.modules()}
    return any(isinstance(p, _BatchNorm) and p not in frozen for p in module.modules())
