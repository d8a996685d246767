"""Cosine transform of rows on a grid: a list of latents whose every prefix is a coarser image.

    y_k = s_k sum_n C[k, n] x_n        C orthonormal 2D DCT-II, k from the lowest frequency

A row of low frequency sums over the whole grid and is the larger the smoother the rows are, so
s_k = min(1, (1 + |k|) / 8) brings all to about one size, |k| = sqrt(u^2 + v^2).
Letters: B batch, N cells of the grid, W width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vistok.core.shapes import Grid, cells

_FLAT = 8  # frequency from which rows keep their size


class Spectrum(nn.Module):
    """Rows [B, N, W] in row-major order <-> their frequencies [B, N, W], lowest first."""

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        matrix, frequency = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1)
        for side in grid:
            matrix = torch.kron(matrix, _cosines(side))
            own = torch.arange(side, dtype=torch.float32).square()
            frequency = (frequency[:, None] + own).flatten()
        frequency = frequency.sqrt()
        order = frequency.argsort(stable=True)
        scale = ((1 + frequency[order]) / _FLAT).clamp(max=1).double()[:, None]
        matrix = matrix[order]
        self.count = cells(grid)
        self.register_buffer("analysis", (matrix * scale).float(), persistent=False)
        self.register_buffer("synthesis", (matrix / scale).T.float(), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        return torch.matmul(self.analysis.to(rows.dtype), rows)

    def inverse(self, frequencies: Tensor) -> Tensor:
        return torch.matmul(self.synthesis.to(frequencies.dtype), frequencies)


def _cosines(side: int) -> Tensor:
    """Orthonormal DCT-II matrix [side, side] fp64, frequency first."""
    place = (torch.arange(side, dtype=torch.float64) + 0.5) * math.pi / side
    matrix = torch.cos(torch.arange(side, dtype=torch.float64)[:, None] * place)
    matrix[0] *= math.sqrt(0.5)
    return matrix * math.sqrt(2 / side)
