"""A score of each sample, such as its aesthetics, as sinusoids (micro-condition; SDXL, arXiv
2307.01952; MaskGen, arXiv 2501.07730)."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from vistok.config import Config


class ScoreConfig(Config):
    channels: int = Field(default=256, ge=2, le=2**14)
    """Half sines, half cosines; an odd last one is zero."""
    scale: float = Field(default=100.0, gt=0, allow_inf_nan=False)
    """Factor of scores."""
    max_period: float = Field(default=1000.0, gt=1, allow_inf_nan=False)
    """Longest wavelength of the sinusoids."""
    value: float = Field(default=6.5, allow_inf_nan=False)
    """Score of samples that come without one. MaskGen's sampler takes this one whatever score it is
    asked for."""


class ScoreWaves(nn.Module):
    """Sinusoids [B, channels] of scores [B]: sines, then cosines."""

    def __init__(self, config: ScoreConfig) -> None:
        super().__init__()
        half, self.pad, self.config = config.channels // 2, config.channels % 2, config
        exponent = -math.log(config.max_period) * torch.arange(half, dtype=torch.float32) / half
        self.register_buffer("frequency", exponent.exp(), persistent=False)

    def forward(self, score: Tensor) -> Tensor:
        angles = (score.float() * self.config.scale)[:, None] * self.frequency
        return nn.functional.pad(torch.cat([angles.sin(), angles.cos()], dim=-1), (0, self.pad))
