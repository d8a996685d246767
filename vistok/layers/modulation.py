"""Adaptive layer norm (adaLN, DiT, arXiv 2212.09748): a vector scales, shifts and gates a block.

The vector is one per sample (DiT), or one per position (RAR).

Letters: B batch, L positions, D width, C width of the conditioning vector.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Modulation(nn.Module):
    """SiLU, then a linear layer, to `count` groups of D channels each.

    The layer starts at zero, so that a fresh block is modulated by nothing (adaLN-Zero).
    """

    def __init__(self, cond_width: int, width: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.proj = nn.Linear(cond_width, count * width)
        self.reset()

    def reset(self) -> None:
        """Back to zero; after an initialization that swept over all linear layers."""
        nn.init.zeros_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def forward(self, condition: Tensor) -> tuple[Tensor, ...]:
        """condition [B, C] -> `count` tensors [B, 1, D], to be used over positions; or a condition
        of each position, [B, L, C] -> [B, L, D]."""
        if condition.ndim == 2:
            condition = condition[:, None]
        return self.proj(nn.functional.silu(condition)).chunk(self.count, dim=-1)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x [B, L, D] (1 + scale) + shift, with shift and scale [B, 1, D] or [B, L, D]."""
    return x * (1 + scale) + shift


class TimeEmbedding(nn.Module):
    """Times -> conditioning vectors: sinusoids, linear, SiLU, linear; [B] in 0..1 -> [B, C].

    Args:
        width: C. channels: sinusoids, half cosines and half sines. max_period: longest wavelength,
            10,000 in DiT and 256 in FlexTok. scale: factor on times before the sinusoids.
    """

    def __init__(
        self, width: int, channels: int = 256, max_period: float = 10000.0, scale: float = 1000.0
    ) -> None:
        super().__init__()
        half = channels // 2
        frequency = torch.exp(-math.log(max_period) * torch.arange(half).float() / half)
        self.register_buffer("frequency", frequency, persistent=False)
        self.scale = scale
        self.up = nn.Linear(2 * half, width)
        self.out = nn.Linear(width, width)

    def forward(self, time: Tensor) -> Tensor:
        angles = (time.float() * self.scale)[:, None] * self.frequency
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1)
        return self.out(nn.functional.silu(self.up(waves.to(self.up.weight.dtype))))
