"""Reductions over processes, all in this file. Without a process group they do nothing.

Tensors of a GPU go the way of the default backend; those of the CPU never touch a GPU, since it
would have to finish its work first: where the default backend (NCCL) cannot carry them, gloo does.
"""

from __future__ import annotations

import weakref

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, 0 for the main one."""
    return dist.get_rank() if world_size() > 1 else 0


def sum_(tensor: Tensor) -> Tensor:
    """Sum over ranks, in place, no gradient."""
    if world_size() > 1:
        dist.all_reduce(tensor, group=_group(tensor))
    return tensor


def mean(tensor: Tensor) -> Tensor:
    """Mean over ranks of equal shares; gradients flow.

    Each rank's loss counts 1/world in the global loss, so the backward pass hands every rank the
    *sum* of what the ranks' (identical) uses of the mean ask for, divided by the world size.
    """
    return tensor if world_size() == 1 else _Mean.apply(tensor)


def gather(tensor: Tensor) -> Tensor:
    """Concatenate equal shares of all ranks along the first axis, in order of rank, no gradient."""
    if world_size() == 1:
        return tensor
    tensor = tensor.contiguous()
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(parts, tensor, group=_group(tensor))
    return torch.cat(parts)


def gather_with_gradient(tensor: Tensor) -> Tensor:
    """As `gather`; gradients flow.

    A rank's share gets what all ranks' uses of it ask for, summed. Where every rank computes the
    same loss from the gathered tensor, the average of gradients over ranks is then its gradient.
    """
    return tensor if world_size() == 1 else _Gather.apply(tensor)


def largest_(tensor: Tensor) -> Tensor:
    """The largest over ranks, element by element, in place, no gradient."""
    if world_size() > 1:
        dist.all_reduce(tensor, dist.ReduceOp.MAX, group=_group(tensor))
    return tensor


def agree(flag: float) -> float:
    """The largest of all ranks' flags, so that every rank acts on what one of them saw."""
    return float(largest_(torch.tensor(float(flag))))


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor (FSDP2) gathered on every rank; any other one as it is."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a sharded tensor, sharing its memory; any other one as it is."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def shard_like(tensor: Tensor, model: Tensor) -> Tensor:
    """A whole tensor, the same on every rank, cut as `model` is cut; no communication."""
    if not is_sharded(model):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, model.device_mesh, model.placements, src_data_rank=None)


def join_like(part: Tensor, model: Tensor) -> Tensor:
    """The inverse on every rank: ranks' shares, cut as `model` is, become the whole tensor."""
    if not is_sharded(model):
        return part
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        part, model.device_mesh, model.placements, shape=model.shape, stride=model.stride()
    ).full_tensor()


def is_sharded(tensor: Tensor) -> bool:
    """True if FSDP2 cut this tensor over the ranks."""
    # By the attribute: importing DTensor costs a second, and most runs never have one.
    return hasattr(tensor, "full_tensor")


def _group(tensor: Tensor) -> dist.ProcessGroup | None:
    """The processes, over a backend that carries this tensor; None = the default one."""
    if tensor.device.type == "cpu" and dist.get_backend() == "nccl":
        return _over_gloo(dist.group.WORLD)
    return None


def _over_gloo(world: dist.ProcessGroup) -> dist.ProcessGroup:
    """Made when the ranks first need it. torch owns it: it must end with the processes' group."""
    made = _gloo[world]() if world in _gloo else None
    if made is None:
        made = dist.new_group(backend="gloo")
        _gloo[world] = weakref.ref(made)
    return made


_gloo: weakref.WeakKeyDictionary[dist.ProcessGroup, weakref.ref[dist.ProcessGroup]] = (
    weakref.WeakKeyDictionary()
)


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor: Tensor) -> Tensor:
        return sum_(tensor.clone()) / world_size()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return sum_(grad.clone()) / world_size()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor: Tensor) -> Tensor:
        ctx.share = len(tensor)
        return gather(tensor)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        first = rank() * ctx.share
        return sum_(grad.clone())[first : first + ctx.share]
