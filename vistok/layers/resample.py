"""Weights of a ViT at another patch size or grid: patch kernels and position tables, resampled.

Letters: D width, C channels, p q sides of a patch, h w sides of a grid, L rows of a table.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vistok.core.errors import InputError
from vistok.layers.resize import resize


def resample_kernel(kernel: Tensor, size: tuple[int, int]) -> Tensor:
    """Patch kernels [D, C, p, q] -> [D, C, *size] by FlexiViT's pseudoinverse (arXiv 2212.08013).

    With B the matrix that resizes a patch (bicubic, antialiased), the new kernel is pinv(B^T) times
    the old one: the least-squares answer to "patches and their resized copies give the same dot
    products". A kernel that has that size is returned as it is.
    """
    old = tuple(kernel.shape[-2:])
    if old == tuple(size):
        return kernel
    basis = torch.eye(math.prod(old), dtype=torch.float32).reshape(-1, 1, *old)
    columns = resize(basis, size, "bicubic", antialias=True).flatten(1)  # [old, new], B^T
    inverse = torch.linalg.pinv(columns)  # [new, old]
    flat = kernel.detach().float().cpu().flatten(2) @ inverse.T
    return flat.unflatten(-1, size).to(kernel)


def resample_positions(table: Tensor, grid: tuple[int, int], lead: int = 1) -> Tensor:
    """A learned position table [L, D] of a square grid -> [lead + h*w, D] of `grid`.

    Bicubic and antialiased over the grid; the `lead` rows in front (a class token's) stay. A table
    that has that grid is returned as it is.

    Raises ValueError if the rows behind the leading ones are no square.
    """
    count = table.shape[0] - lead
    side = math.isqrt(max(count, 0))
    if side * side != count:
        raise InputError(
            f"position table: {table.shape[0]} rows are no square behind {lead} leading ones; "
            "expected lead + n*n"
        )
    if (side, side) == tuple(grid):
        return table
    maps = table[lead:].detach().float().T.reshape(1, -1, side, side)
    new = resize(maps, grid, "bicubic", antialias=True)[0].flatten(1).T
    return torch.cat([table[:lead], new.to(table)])
