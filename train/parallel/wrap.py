"""Modules on several processes: alone, replicated (DDP), or sharded (FSDP2).

`accelerate launch` with an FSDP config, or `sharding=full`, shards the module of the first phase
block by block; networks of losses are small and stay whole. So do some parameters: a quantizer
writes its codebook outside of any graph, and losses are balanced at the decoder's last layer.
Gradients of those, and of networks that train beside a wrapped module, are averaged here.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vistok.config import ConfigError
from vistok.layers.transformer import Block
from vistok.runtime import distributed
from vistok.train.optim.averaging import has_batch_norm

Sharding = Literal["auto", "none", "full"]


def wants_sharding(sharding: Sharding, world: int) -> bool:
    """True if modules are sharded; ConfigError for launch settings that cannot be followed."""
    launched = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if launched and os.environ.get("FSDP_VERSION", "1") != "2":
        raise ConfigError(
            "the launcher asks for FSDP version 1; set fsdp_version: 2 in the accelerate config, "
            "as configs/launch/fsdp2.yaml does"
        )
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        raise ConfigError(
            "the launcher asks for DeepSpeed, which vistok does not drive; use "
            "configs/launch/fsdp2.yaml to shard, or a MULTI_GPU config to replicate"
        )
    if launched and sharding == "none":
        raise ConfigError(
            "sharding=none, but the launcher asks for FSDP; set sharding=auto, or launch with "
            "configs/launch/8gpu.yaml"
        )
    return world > 1 and (launched or sharding == "full")


class Parallel:
    """Wraps modules, and exchanges their gradients.

    Args:
        sharded: FSDP2 for those that are asked for; else everything is replicated.
        compiled: torch.compile each module (each block, where it is sharded).
    """

    def __init__(self, accelerator: Accelerator, sharded: bool, compiled: bool) -> None:
        self.accelerator, self.sharded, self.compiled = accelerator, sharded, compiled
        self._whole: dict[nn.Module, list[nn.Parameter]] = {}  # of sharded modules
        self._beside: dict[nn.Module, list[nn.Module]] = {}  # by the wrapped module
        if compiled:
            # Balancing losses walks a compiled graph more than once, so it must keep its buffers.
            torch._functorch.config.donated_buffer = False

    def wrap(
        self, module: nn.Module, shard: bool = True, whole: Collection[nn.Parameter] = ()
    ) -> nn.Module:
        """The module to call in training; the bare one keeps its names, and may be sharded in it.

        Args:
            shard: False = it is replicated in any case. whole: parameters that are never cut.
        """
        if self.sharded and shard:
            return self._shard(module, set(whole))
        if self.compiled:
            module = torch.compile(module)
        if self.accelerator.num_processes == 1:
            return module
        if self.accelerator.distributed_type == DistributedType.FSDP:
            device = self.accelerator.device
            ids = None if device.type == "cpu" else [device.index]
            return DistributedDataParallel(module, device_ids=ids, broadcast_buffers=False)
        return self.accelerator.prepare_model(module, evaluation_mode=False)

    def join(self, wrapped: nn.Module, module: nn.Module) -> None:
        """Train a bare module beside a wrapped one: every process holds a whole copy.

        Losses call it inside the wrapped module's step as often as they like, or not at all, which
        DDP does not allow.
        """
        if self.compiled:
            module.compile()
        self._beside.setdefault(wrapped, []).append(module)

    def autocast(self) -> AbstractContextManager:
        """The precision of the run."""
        return self.accelerator.autocast()

    def backward(self, loss: Tensor) -> None:
        """The backward pass of one micro-batch."""
        self.accelerator.backward(loss)

    @contextmanager
    def micro_batch(self, wrapped: nn.Module, last: bool) -> Iterator[None]:
        """Gradients are exchanged with the last micro-batch only."""
        if wrapped in self._whole:
            wrapped.set_requires_gradient_sync(last)
            yield
            return
        with nullcontext() if last else _no_sync(wrapped):
            yield

    def finish(self, wrapped: nn.Module) -> None:
        """After the last backward: average the gradients that no wrapper averaged."""
        if self.accelerator.num_processes == 1:
            return
        beside = (p for module in self._beside.get(wrapped, ()) for p in module.parameters())
        for parameter in (*self._whole.get(wrapped, ()), *beside):
            if parameter.grad is not None:
                distributed.sum_(parameter.grad).div_(self.accelerator.num_processes)

    def _shard(self, module: nn.Module, whole: set[nn.Parameter]) -> nn.Module:
        from torch.distributed.fsdp import fully_shard

        # Features are views of activations, and nothing changes them in place.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
        for part in [*module.modules()][::-1]:
            if isinstance(part, Block):
                if self.compiled:
                    part.compile()
                fully_shard(part, ignored_params=whole)
        fully_shard(module, ignored_params=whole)
        self._whole[module] = [p for p in module.parameters() if p in whole and p.requires_grad]
        return module


def share_batch_norm(name: str, module: nn.Module, accelerator: Accelerator) -> None:
    """Batch norm sees the micro-batch of all processes, or is refused."""
    if accelerator.num_processes == 1 or not has_batch_norm(module):
        return
    if accelerator.device.type != "cuda":
        raise ConfigError(
            f"{name} has batch norm, which several processes can share on GPUs only; "
            "use one process, or another norm"
        )
    nn.SyncBatchNorm.convert_sync_batchnorm(module)  # replaces the layers inside


def _no_sync(wrapped: nn.Module) -> AbstractContextManager:
    return wrapped.no_sync() if isinstance(wrapped, DistributedDataParallel) else nullcontext()
