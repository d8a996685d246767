"""The straight path of rectified flow (arXiv 2209.03003, 2403.03206), and how times are sampled.

x_t = t noise + (1 - t) clean, so t = 0 is data and t = 1 is noise; the velocity dx/dt is
noise - clean, and the clean guess of a predicted velocity v is x_t - t v.
Letters: B batch.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from vistok.config import Config
from vistok.core.rng import Rng
from vistok.runtime import distributed


class TimeConfig(Config):
    """Distribution of the training times."""

    kind: Literal["logit_normal", "uniform", "mode"] = "logit_normal"
    """logit_normal: sigmoid of a normal number (SD3, FlexTok); uniform on [0, 1); mode: SD3's
    density with a heavy tail, equation 20 of arXiv 2403.03206."""
    mean: float = 0.0
    """Mean of that normal number."""
    std: float = Field(default=1.0, gt=0)
    """Standard deviation of that normal number."""
    mode_scale: float = Field(default=1.29, ge=-1, le=2 / (math.pi - 2))
    """mode: s of that equation; above 0 the middle is favored, below it the ends."""
    stratify: Literal["none", "global", "local"] = "none"
    """global: each sample of the global batch takes its uniform number from a stratum of its own;
    local: those of each process's batch do, in their order (the form of FlexTok's code)."""


def sample_times(uniform: Tensor, config: TimeConfig) -> Tensor:
    """Uniform numbers [B] in [0, 1) -> times [B] in [0, 1]."""
    if config.kind == "uniform":
        return uniform
    if config.kind == "mode":
        bend = (math.pi * uniform / 2).cos().square() - 1 + uniform
        return 1 - uniform - config.mode_scale * bend
    # The inverse of the normal distribution is infinite at 0, which a uniform number can be.
    inside = uniform.double().clamp(1e-12, 1 - 1e-12)
    normal = torch.special.ndtri(inside) * config.std + config.mean
    return normal.sigmoid().to(uniform.dtype)


def uniform_numbers(index: Tensor, rng: Rng, config: TimeConfig) -> Tensor:
    """Uniform numbers [B] in [0, 1) for `sample_times`, keyed by sample `index` [B]."""
    inside = rng.uniform(index)
    if config.stratify == "none":
        return inside
    if config.stratify == "local":
        return (torch.arange(len(index)) + inside) / max(len(index), 1)
    mine = rng.child("stratum").uniform(index)
    everyone = distributed.gather(mine)
    places = torch.empty(len(everyone), dtype=torch.int64)
    places[everyone.argsort(stable=True)] = torch.arange(len(everyone))
    first = distributed.rank() * len(index)
    numbers = (places[first : first + len(index)] + inside) / max(len(everyone), 1)
    return numbers.clamp(max=1 - 2**-24)  # a rounded sum may be 1


def interpolate(clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """Samples at `time` [B] between clean [B, ...] and noise [B, ...]."""
    t = spread(time, clean)
    return t * noise + (1 - t) * clean


def velocity(clean: Tensor, noise: Tensor) -> Tensor:
    """The direction that a network learns, noise - clean; the same at every time."""
    return noise - clean


def clean_guess(x: Tensor, predicted: Tensor, time: Tensor) -> Tensor:
    """The clean sample [B, ...] that x [B, ...] at `time` [B] and a velocity point to."""
    return x - spread(time, x) * predicted


def spread(time: Tensor, like: Tensor) -> Tensor:
    """[B] -> [B, 1, ...] with the rank, type and device of `like`."""
    return time.to(like).reshape(-1, *(1,) * (like.ndim - 1))
