"""Muon: momentum whose update is orthogonalized (Jordan 2024; scale of arXiv 2502.16982).

For a matrix with momentum M the step is lr * 0.2 sqrt(max(rows, columns)) * U V^T, where U S V^T is
the SVD of M, approached by five Newton-Schulz iterations. torch has a Muon too, which iterates in
bf16 whatever the precision of training: there the last bit of a gradient can move a step by half a
percent, so that two processes would not train like one. This one iterates in fp32 unless told
otherwise, and takes all matrices of one shape in one batched product.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from vistok.core.errors import InputError
from vistok.runtime import distributed

_A, _B, _C = 3.4445, -4.7750, 2.0315  # quintic with the steepest slope at 0 (Jordan 2024)
_STEPS = 5


class Muon(torch.optim.Optimizer):
    """Args: params: groups of matrices; lr, momentum (Nesterov), weight_decay (decoupled)."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 4e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim != 2:
                    raise InputError(
                        f"Muon moves matrices; got a parameter of shape {tuple(parameter.shape)}"
                    )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in alike.items():
                updates = orthogonal(self._momentum(parameters, group["momentum"]), self.dtype)
                scale = 0.2 * max(shape) ** 0.5
                for parameter, update in zip(parameters, updates.unbind(), strict=True):
                    update = distributed.shard_like(update.to(parameter.dtype), parameter)
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update, alpha=-group["lr"] * scale)

    def _momentum(self, parameters: list[Tensor], momentum: float) -> Tensor:
        """[n, rows, columns]: Nesterov momenta of parameters of one shape."""
        moved = []
        for parameter in parameters:
            state = self.state[parameter]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter.grad)
            buffer = state["momentum"].lerp_(parameter.grad, 1 - momentum)
            # Only a whole matrix can be orthogonalized; every rank does a sharded one's.
            moved.append(distributed.whole(parameter.grad.lerp(buffer, momentum)))
        return torch.stack(moved)


def orthogonal(matrices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """[n, r, c] -> about U V^T of each (singular values between 0.7 and 1.2)."""
    x = matrices.to(dtype)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x.mT if tall else x
