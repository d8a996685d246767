"""Optimizers by config; matrices decay, vectors (biases, norms, single tokens) do not.

A config becomes a list of torch optimizers over one module, since Muon moves only matrices and
leaves the rest to AdamW.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from vistok.config import Config, ConfigError
from vistok.config.registry import build, register
from vistok.core.errors import InputError
from vistok.runtime import distributed
from vistok.runtime.precision import Precision
from vistok.train.optim.muon import Muon
from vistok.train.tasks.base import Phase

Named = list[tuple[str, nn.Parameter]]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Mean = Annotated[float, Field(ge=0, lt=1)]


class AdamWConfig(Config):
    kind: Literal["adamw"] = "adamw"
    lr: Positive = 1e-4
    """Peak learning rate."""
    betas: tuple[Mean, Mean] = (0.9, 0.99)
    """Decay of the running means of the gradient and of its square."""
    eps: Positive = 1e-8
    """Added to the root of the squares."""
    weight_decay: Decay = 1e-4
    """Decoupled decay of matrices, per step times the learning rate."""
    no_decay: tuple[str, ...] = ()
    """Modules and parameters that do not decay either, by a name between the dots of their path
    (patch_embed, positions); vectors never do."""


class SGDConfig(Config):
    kind: Literal["sgd"] = "sgd"
    lr: Positive = 0.1
    """Peak learning rate."""
    momentum: Mean = 0.9
    """Decay of the running sum of gradients."""
    nesterov: bool = True
    """Nesterov's form of momentum."""
    weight_decay: Decay = 5e-4
    """L2 penalty of matrices."""

    @model_validator(mode="after")
    def _moves(self) -> SGDConfig:
        if self.nesterov and not self.momentum:
            raise InputError(
                "nesterov=true needs momentum above 0; got momentum=0: set nesterov=false"
            )
        return self


class MuonConfig(Config):
    kind: Literal["muon"] = "muon"
    lr: Positive = 4e-3
    """Peak learning rate of the matrices inside transformer blocks; updates have AdamW's size
    (arXiv 2502.16982)."""
    momentum: Mean = 0.95
    """Decay of the running mean of gradients (Nesterov)."""
    weight_decay: Decay = 0.05
    """Decoupled decay of these matrices, per step times the learning rate."""
    precision: Precision = "fp32"
    """Precision of the orthogonalization: bf16 is fast, but depends on the last bit of a gradient.
    auto: bf16 where the hardware has it."""
    rest: AdamWConfig = AdamWConfig(lr=2e-3, betas=(0.9, 0.95), weight_decay=0.05)
    """AdamW for everything else: embeddings, heads, convolutions, norms, tokens."""


@register("optimizer", AdamWConfig)
def adamw(config: AdamWConfig, named: Named, factors: Mapping[str, float]) -> list:
    if not named:
        return []
    # One pass over the memory instead of ten, on GPUs and on CPUs.
    fused = named[0][1].device.type in ("cuda", "cpu") or None
    groups = _groups(named, config.lr, config.weight_decay, factors, config.no_decay)
    return [torch.optim.AdamW(groups, betas=config.betas, eps=config.eps, fused=fused)]


@register("optimizer", SGDConfig)
def sgd(config: SGDConfig, named: Named, factors: Mapping[str, float]) -> list:
    groups = _groups(named, config.lr, config.weight_decay, factors)
    return [torch.optim.SGD(groups, momentum=config.momentum, nesterov=config.nesterov)]


@register("optimizer", MuonConfig)
def muon(config: MuonConfig, named: Named, factors: Mapping[str, float]) -> list:
    """Orthogonalized momentum for hidden matrices (Jordan 2024), AdamW for the rest."""
    hidden = [(n, p) for n, p in named if p.ndim == 2 and ".blocks." in f".{n}"]
    others = [(n, p) for n, p in named if not (p.ndim == 2 and ".blocks." in f".{n}")]
    rest = adamw(config.rest, others, factors)
    if not hidden:  # a discriminator of convolutions
        return rest
    groups = _groups(hidden, config.lr, config.weight_decay, factors)
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    return [Muon(groups, momentum=config.momentum, dtype=dtype), *rest]


def make_optimizers(
    config: Config, module: nn.Module, factors: Mapping[str, float] | None = None
) -> list[torch.optim.Optimizer]:
    """Optimizers over the trainable parameters of a bare module.

    Args:
        factors: learning-rate factor by name prefix ("encoder" -> 0.1); the longest match wins.
    """
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    if not named:
        raise ConfigError("nothing to train: every parameter is frozen; shorten task.freeze")
    return build(config, named, factors or {})


def optimizers_of(
    config: Config, phase: Phase, modules: Mapping[str, nn.Module]
) -> dict[str, list[torch.optim.Optimizer]]:
    """The optimizers of a phase, by the name of the bare module whose parameters they move."""
    config = with_lr(config, phase.lr)
    return {
        name: make_optimizers(
            _scaled(config, 1.0 if name == phase.module else phase.lr_factors.get(name, 1.0)),
            modules[name],
            phase.lr_factors if name == phase.module else None,
        )
        for name in phase.modules
    }


def _scaled(config: Config, factor: float) -> Config:
    """The config at its learning rates times a factor."""
    changes: dict[str, Any] = {"lr": config.lr * factor}
    if isinstance(config, MuonConfig):
        changes["rest"] = _scaled(config.rest, factor)
    return config if factor == 1.0 else config.model_copy(update=changes)


def with_lr(config: Config, lr: float | None) -> Config:
    """The config at another learning rate (a discriminator's own); None leaves it as it is."""
    if lr is None:
        return config
    if isinstance(config, MuonConfig):
        rest = config.rest.model_copy(update={"lr": lr})
        return config.model_copy(update={"lr": lr, "rest": rest})
    return config.model_copy(update={"lr": lr})


def _groups(
    named: Named,
    lr: float,
    decay: float,
    factors: Mapping[str, float],
    no_decay: Collection[str] = (),
) -> list[dict]:
    """Parameter groups by (weight decay, learning rate), sharded and whole ones apart."""
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        decays = parameter.ndim >= 2 and not set(name.split(".")) & set(no_decay)
        key = (decay if decays else 0.0, lr * _factor(name, factors))
        # torch's batched kernels take either kind, but not both in one call.
        groups.setdefault((*key, distributed.is_sharded(parameter)), []).append(parameter)
    return [
        {"params": p, "weight_decay": d, "lr": rate, "peak_lr": rate}
        for (d, rate, _), p in groups.items()
    ]


def _factor(name: str, factors: Mapping[str, float]) -> float:
    matches = [prefix for prefix in factors if f"{name}.".startswith(f"{prefix}.")]
    return factors[max(matches, key=len)] if matches else 1.0
