"""Classifier-free guidance: how far predictions are pushed from the unconditional ones.

guided = u + scale (c - u), where c is predicted under the condition and u without it (Ho and
Salimans, arXiv 2207.12598). Scale 1 is the conditional prediction alone, 0 the unconditional one;
samplers that write c + g (c - u) have scale 1 + g.
The scale may grow while a sample is generated, from `guidance_start` to `guidance`; with t the
share of steps that are done, start + (guidance - start) f(t), where f is
    constant  1
    linear    t                          (VAR, xAR, TiTok's sampler)
    power     t**power
    cosine    (1 - cos(pi t**power)) / 2 (RAR, TiTok's and MaskGen's samplers)
and it may be applied within an interval of t alone; (0.18, 1) is ReTok's *step* schedule.
Letters: B samples, R = B or 2B rows (conditional, then unconditional).
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from vistok.config import Config
from vistok.core.errors import InputError

Scale = Annotated[float, Field(ge=0, le=1e4, allow_inf_nan=False)]


class GuidanceConfig(Config):
    """Settings of classifier-free guidance; a generator's sampling config extends them."""

    guidance: Scale = 1.0
    """Scale of classifier-free guidance; 1 = none, 0 = the model without its condition."""
    guidance_schedule: Literal["constant", "linear", "power", "cosine"] = "constant"
    """Growth of the scale from `guidance_start` to `guidance` over the steps of a sample."""
    guidance_power: float = Field(default=1.0, ge=0, le=1e4, allow_inf_nan=False)
    """Exponent of the power and cosine schedules: the larger, the later guidance sets in; 0 =
    `guidance` from the first step on."""
    guidance_start: Scale = 1.0
    """Scale at the first step of a schedule that grows; 1 = no guidance there."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Shares of the steps between which guidance applies; before and after them the conditional
    prediction is taken alone. [0.18, 1]: none for the first 18 % (ReTok)."""

    @model_validator(mode="after")
    def _ordered(self) -> GuidanceConfig:
        first, last = self.guidance_interval
        if not 0 <= first < last <= 1:
            raise InputError(
                f"guidance_interval=[{first:g}, {last:g}]: expected two shares of the steps, "
                "0 <= first < last <= 1"
            )
        return self

    @property
    def guided(self) -> bool:
        """True if samples need the unconditional prediction besides the conditional one."""
        return self.guidance != 1.0 or self.starts_guided

    @property
    def starts_guided(self) -> bool:
        """True for a schedule that begins with guidance."""
        return self.guidance_schedule != "constant" and self.guidance_start != 1.0

    def scale_at(self, done: float) -> float:
        """Scale when the share `done` (0..1) of a sample's steps is behind it."""
        first, last = self.guidance_interval
        if done < first or (done >= last and last < 1):
            return 1.0
        if self.guidance_schedule == "constant":
            return self.guidance
        if self.guidance_schedule != "linear":
            done = done**self.guidance_power
        if self.guidance_schedule == "cosine":
            done = (1 - math.cos(math.pi * done)) / 2
        return self.guidance_start + (self.guidance - self.guidance_start) * done


def guide(predictions: Tensor, scale: float | Tensor, samples: int) -> Tensor:
    """Guided predictions [B, ...] of rows [R, ...].

    Args:
        predictions: [2B, ...], conditional then unconditional; [B, ...] is returned as it is.
        scale: of all samples, or [B, 1, ...] of each.
        samples: B.
    """
    if len(predictions) == samples:
        return predictions
    conditional, unconditional = predictions.chunk(2)
    if not isinstance(scale, Tensor) and scale == 1.0:  # u + (c - u) would be rounded
        return conditional
    guided = unconditional + scale * (conditional - unconditional)
    return torch.where(scale == 1.0, conditional, guided) if isinstance(scale, Tensor) else guided
