"""Scaling of continuous tokens to what a generator models: numbers of about unit variance.

Letters: B batch, L positions, C channels.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor

from vistok.config import Config
from vistok.config.one_or_list import one_or_list
from vistok.core.errors import InputError

LEAST = 1e-6  # standard deviation that a channel is divided by

Number = Annotated[float, Field(allow_inf_nan=False)]


class LatentScaleConfig(Config):
    """Numbers that a generator models: (value - shift) scale."""

    shift: one_or_list(Number) = 0.0
    """One number, or one for each channel."""
    scale: one_or_list(Number) = 1.0
    """One number, or one for each channel (0.2325 for MAR's KL-16: one over its deviation)."""

    @model_validator(mode="after")
    def _divides(self) -> LatentScaleConfig:
        scales = self.scale if isinstance(self.scale, tuple) else (self.scale,)
        if 0.0 in scales:
            raise InputError(f"scale={self.scale}: expected numbers other than 0")
        return self

    def row(self, name: str, channels: int) -> Tensor:
        """`shift` or `scale` of all channels [C]; InputError for another count of them."""
        numbers = getattr(self, name)
        if isinstance(numbers, tuple) and len(numbers) != channels:
            raise InputError(
                f"latents.{name}: {len(numbers)} numbers for tokens of {channels} channels; "
                "expected one, or as many"
            )
        return torch.tensor(numbers, dtype=torch.float32).expand(channels).contiguous()


def measured(values: Tensor) -> LatentScaleConfig:
    """The scaling that gives each channel of values [B, L, C] mean 0 and deviation 1."""
    rows = values.double().flatten(0, -2)
    scale = 1 / rows.std(0, correction=0).clamp(min=LEAST)
    return LatentScaleConfig(shift=tuple(rows.mean(0).tolist()), scale=tuple(scale.tolist()))
