"""Classifier-free guidance: how far predictions are pushed from the unconditional ones.

guided = u + scale (c - u), where c is predicted under the condition and u without it (Ho and
Salimans, arXiv 2207.12598). Scale 1 is the conditional prediction alone, 0 the unconditional one.
The scale may grow while a sample is generated; with t the share of steps that are done:
    constant  scale
    linear    1 + (scale - 1) t                              (VAR, xAR)
    cosine    1 + (scale - 1) (1 - cos(pi t**power)) / 2     (RAR, TiTok's and MaskGen's samplers)
Letters: B samples, R = B or 2B rows (conditional, then unconditional).
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field
from torch import Tensor

from vistok.config import Config


class GuidanceConfig(Config):
    """Settings of classifier-free guidance; a generator's sampling config extends them."""

    guidance: float = Field(default=1.0, ge=0, le=1e4, allow_inf_nan=False)
    """Scale of classifier-free guidance; 1 = none, 0 = the model without its condition."""
    guidance_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Growth of the scale from 1 to `guidance` over the steps of a sample; constant: none."""
    guidance_power: float = Field(default=1.0, ge=0, le=1e4, allow_inf_nan=False)
    """Exponent of the cosine schedule: the larger, the later guidance sets in; 0 = `guidance` from
    the first step on."""

    @property
    def guided(self) -> bool:
        """True if samples need the unconditional prediction besides the conditional one."""
        return self.guidance != 1.0

    def scale_at(self, done: float) -> float:
        """Scale when the share `done` (0..1) of a sample's steps is behind it."""
        if self.guidance_schedule == "constant":
            return self.guidance
        if self.guidance_schedule == "cosine":
            done = (1 - math.cos(math.pi * done**self.guidance_power)) / 2
        return 1.0 + (self.guidance - 1.0) * done


def guide(predictions: Tensor, scale: float, samples: int) -> Tensor:
    """Guided predictions [B, ...] of rows [R, ...].

    Args:
        predictions: [2B, ...], conditional then unconditional; [B, ...] is returned as it is.
        samples: B.
    """
    if len(predictions) == samples:
        return predictions
    conditional, unconditional = predictions.chunk(2)
    return unconditional + scale * (conditional - unconditional)
