"""Exact sums over ranks for accumulators that live on the CPU."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from vistok import distributed


def sum_everywhere(tensor: Tensor) -> Tensor:
    """A new tensor: the sum over ranks, on the device of `tensor`.

    NCCL moves nothing that lies on the CPU, so such a tensor travels through the current GPU.
    """
    if distributed.world_size() == 1:
        return tensor.clone()
    away = dist.get_backend() == "nccl" and not tensor.is_cuda
    moved = tensor.to(torch.device("cuda", torch.cuda.current_device())) if away else tensor.clone()
    return distributed.sum_(moved).to(tensor.device)
