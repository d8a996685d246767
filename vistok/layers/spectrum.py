"""Latents that are frequencies of an image's patches: a list whose every prefix is an image.

    analysis    z_k = E_k s_k sum_n C[k, n] A x_n
    synthesis   y_n = B sum_k C[k, n] / s_k D_k z_k

x_n is the row of patch n, C the orthonormal 2D DCT-II with k from the lowest frequency, A and B
linear layers that all patches share, E_k and D_k small ones of each frequency, all alike at the
start. A frequency that is missing adds nothing. Rows of images are smooth: their frequencies fall
about as 1 / |k|, and s_k = min(2, (1 + |k|) / 8), |k| = sqrt(u^2 + v^2), brings all to about one
size, so that a bounded quantizer has all its codes for each.
Letters: B batch, N cells of the grid, W width of rows, C channels that are transformed, D width of
a latent.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vistok.core.shapes import Grid, cells

_KEPT, _LARGEST = 8, 2  # s_k is 1 at |k| = 7, and at most 2


class Analysis(nn.Module):
    """Rows of patches [B, N, W] -> latents [B, N, D], the lowest frequency first."""

    def __init__(self, grid: Grid, width: int, channels: int, dim: int) -> None:
        super().__init__()
        self.rows = nn.Linear(width, channels)
        one = torch.randn(channels, dim) * channels**-0.5
        self.slots = nn.Parameter(one.repeat(cells(grid), 1, 1))
        matrix, scale = cosines(grid)
        self.register_buffer("matrix", matrix * scale[:, None], persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        y = self.rows(rows)
        y = torch.matmul(self.matrix.to(y.dtype), y)
        return torch.einsum("bnc,ncd->bnd", y, self.slots.to(y.dtype))


class Synthesis(nn.Module):
    """Values of frequencies [B, N, D] -> rows of patches [B, N, W]."""

    def __init__(self, grid: Grid, width: int, channels: int, dim: int) -> None:
        super().__init__()
        one = torch.randn(dim, channels) * dim**-0.5
        self.slots = nn.Parameter(one.repeat(cells(grid), 1, 1))
        self.rows = nn.Linear(channels, width)
        matrix, scale = cosines(grid)
        self.register_buffer("matrix", (matrix / scale[:, None]).T.contiguous(), persistent=False)

    def forward(self, values: Tensor, present: Tensor | None = None) -> Tensor:
        """present: [B, N] bool, None = all."""
        slots = self.slots
        y = torch.einsum("bnd,ndc->bnc", values.to(slots.dtype), slots)
        if present is not None:
            y = y * present[..., None].to(y.dtype)
        return self.rows(torch.matmul(self.matrix.to(y.dtype), y))


def cosines(grid: Grid) -> tuple[Tensor, Tensor]:
    """(orthonormal DCT-II of a grid [N, N] fp32, frequency first; its scales s [N])."""
    matrix, frequency = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1)
    for side in grid:
        place = (torch.arange(side, dtype=torch.float64) + 0.5) * math.pi / side
        own = torch.cos(torch.arange(side, dtype=torch.float64)[:, None] * place)
        own[0] *= math.sqrt(0.5)
        matrix = torch.kron(matrix, own * math.sqrt(2 / side))
        square = torch.arange(side, dtype=torch.float32).square()
        frequency = (frequency[:, None] + square).flatten()
    frequency = frequency.sqrt()
    order = frequency.argsort(stable=True)
    return matrix[order].float(), ((1 + frequency[order]) / _KEPT).clamp(max=_LARGEST)
