"""Optimisers by config; matrices decay, vectors (biases, norms, single tokens) do not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from vistok.config import Config
from vistok.registry import build, register


class AdamWConfig(Config):
    kind: Literal["adamw"] = "adamw"
    lr: float = Field(default=1e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-8
    weight_decay: float = Field(default=1e-4, ge=0)


class SGDConfig(Config):
    kind: Literal["sgd"] = "sgd"
    lr: float = Field(default=0.1, gt=0)
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = Field(default=5e-4, ge=0)


@register("optimizer", AdamWConfig)
class AdamW(torch.optim.AdamW):
    def __init__(self, config: AdamWConfig, groups: list[dict]) -> None:
        on_gpu = any(p.is_cuda for group in groups for p in group["params"])
        super().__init__(
            groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=on_gpu or None
        )


@register("optimizer", SGDConfig)
class SGD(torch.optim.SGD):
    def __init__(self, config: SGDConfig, groups: list[dict]) -> None:
        super().__init__(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)


def make_optimizer(
    config: AdamWConfig | SGDConfig, module: nn.Module, factors: Mapping[str, float] | None = None
) -> torch.optim.Optimizer:
    """An optimiser over the trainable parameters of `module`.

    Args:
        factors: learning-rate factor by name prefix ("encoder" -> 0.1); longest match wins.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            decay = config.weight_decay if parameter.ndim >= 2 else 0.0
            key = (decay, _factor(name, factors or {}))
            groups.setdefault(key, []).append(parameter)
    if not groups:
        raise ValueError("nothing to train: every parameter is frozen; shorten task.freeze")
    return build(
        config,
        [
            {"params": params, "weight_decay": decay, "lr": config.lr * factor}
            for (decay, factor), params in groups.items()
        ],
    )


def clip_and_norm(parameters: Iterable[nn.Parameter], limit: float | None) -> torch.Tensor:
    """Global gradient norm; gradients are scaled down to `limit` if there is one."""
    return nn.utils.clip_grad_norm_(list(parameters), float("inf") if limit is None else limit)


def _factor(name: str, factors: Mapping[str, float]) -> float:
    # A wrapped module's names carry its wrapper's prefix; the parts' names are inside.
    plain = name.removeprefix("module.").removeprefix("_orig_mod.")
    matches = [p for p in factors if plain == p or plain.startswith(p + ".")]
    return factors[max(matches, key=len)] if matches else 1.0
