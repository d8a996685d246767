"""The straight path of rectified flow (arXiv 2209.03003, 2403.03206), and how times are sampled.

x_t = t noise + (1 - t) clean, so t = 0 is data and t = 1 is noise; the velocity dx/dt is
noise - clean, and the clean guess of a predicted velocity v is x_t - t v.
Letters: B batch.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from vistok.config import Config


class TimeConfig(Config):
    """Distribution of the training times."""

    kind: Literal["logit_normal", "uniform"] = "logit_normal"
    """logit_normal: sigmoid of a normal number (SD3, FlexTok); uniform on [0, 1)."""
    mean: float = 0.0
    """Mean of that normal number."""
    std: float = Field(default=1.0, gt=0)
    """Standard deviation of that normal number."""


def sample_times(uniform: Tensor, config: TimeConfig) -> Tensor:
    """Uniform numbers [B] in [0, 1) -> times [B] in [0, 1]."""
    if config.kind == "uniform":
        return uniform
    # The inverse of the normal distribution is infinite at 0, which a uniform number can be.
    inside = uniform.double().clamp(1e-12, 1 - 1e-12)
    normal = torch.special.ndtri(inside) * config.std + config.mean
    return normal.sigmoid().to(uniform.dtype)


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
