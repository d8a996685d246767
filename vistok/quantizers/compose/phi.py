"""Convolutions that smooth the map of each scale (VAR, arXiv 2404.02905, section 3.3).

    phi(h) = (1 - ratio) h + ratio conv3x3(h)

K of them are shared by S scales: scale s takes the one whose tick lies nearest to s / (S - 1).
Ticks are the centers of K equal parts of 0..1; four of them lie further out, at
1/12, 13/36, 23/36, 11/12, as in VAR.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from vistok.config import Config


class PhiConfig(Config):
    ratio: float = Field(default=0.5, gt=0, le=1)
    """Share of the convolution in the result."""
    count: int | None = Field(default=4, ge=1, le=256)
    """K: 1 = shared by all scales, 4 = VAR; null = as many as scales."""


class Phi(nn.Conv2d):
    """[B, d, H, W] -> the same."""

    def __init__(self, dim: int, ratio: float) -> None:
        super().__init__(dim, dim, 3, padding=1)
        self.ratio = ratio

    def forward(self, h: Tensor) -> Tensor:
        # Quantizers compute in fp32, whatever the precision of the weights.
        bias = None if self.bias is None else self.bias.to(h.dtype)
        smooth = self._conv_forward(h, self.weight.to(h.dtype), bias)
        return h * (1 - self.ratio) + smooth * self.ratio


class Phis(nn.ModuleList):
    """The convolutions of `scales` scales; `of(s)` is that of one. Those that no scale takes do not
    train."""

    def __init__(self, config: PhiConfig, dim: int, scales: int) -> None:
        count = scales if config.count is None else config.count
        super().__init__(Phi(dim, config.ratio) for _ in range(count))
        self._nearest = nearest_ticks(count, scales)
        for unused in set(range(count)) - set(self._nearest):
            self[unused].requires_grad_(False)

    def of(self, scale: int) -> Phi:
        return self[self._nearest[scale]]


def nearest_ticks(count: int, scales: int) -> list[int]:
    """For each scale the number of its convolution, of `count`."""
    # In float64 and in this order, as published: two of VAR's ten scales lie halfway between ticks,
    # and rounding decides. An exact tie goes to the lower one.
    margin = 1 / 3 / count if count == 4 else 1 / 2 / count
    ticks = np.linspace(margin, 1 - margin, count)
    places = [scale / (scales - 1) if scales > 1 else 0.0 for scale in range(scales)]
    return [int(np.abs(ticks - place).argmin()) for place in places]
