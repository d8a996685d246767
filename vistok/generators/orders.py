"""Orders in which positions are generated, and masks that hide them in training.

Everything random is keyed by the sample's number. Letters: B batch, L positions, A axes of a grid.
"""

from __future__ import annotations

import itertools
import math
from typing import Literal

import torch
from torch import Tensor

from vistok.core.rng import Rng
from vistok.layers.positions import grid_positions

MaskSchedule = Literal["arccos", "cosine", "linear", "root", "square"]


def raster(batch: int, length: int) -> Tensor:
    """[B, L] int64: positions from first to last."""
    return torch.arange(length).expand(batch, length)


def random_order(index: Tensor, rng: Rng, length: int, share: float = 1.0) -> Tensor:
    """[B, L] int64: a permutation per sample (RAR, arXiv 2411.00776; MAR).

    Args:
        index: sample numbers [B].
        share: probability that a sample is permuted; the others keep the raster order.
    """
    order = rng.child("order").uniform(index, (length,)).argsort(dim=-1)
    permuted = rng.child("permuted").uniform(index) < share
    return torch.where(permuted[:, None], order, raster(len(index), length))


def mask_ratio(u: Tensor, schedule: MaskSchedule) -> Tensor:
    """Share of positions that are masked, for u in [0, 1] (MaskGIT, arXiv 2202.04200).

    In training u is uniform; in sampling it is the share of steps that are done.
    """
    if schedule == "arccos":
        return u.acos() / (math.pi * 0.5)
    if schedule == "cosine":
        return (u * (math.pi / 2)).cos()
    return 1 - u ** {"linear": 1, "root": 0.5, "square": 2}[schedule]


def mask_of(u: Tensor, noise: Tensor, schedule: MaskSchedule = "arccos") -> Tensor:
    """[B, L] bool: positions to be predicted, one or more per sample, at uniform places.

    Args:
        u: [B] in [0, 1], for the share that is masked. noise: [B, L] uniform numbers, whose order
            is the permutation that ranks the positions.
    """
    count = (noise.shape[1] * mask_ratio(u, schedule)).round().clamp(min=1)
    return noise.argsort(dim=-1) < count[:, None]


def random_mask(index: Tensor, rng: Rng, length: int, schedule: MaskSchedule = "arccos") -> Tensor:
    """[B, L] bool: `mask_of` numbers that are keyed by the samples `index` [B]."""
    u = rng.child("ratio").uniform(index)
    return mask_of(u, rng.child("mask").uniform(index, (length,)), schedule)


def near_to_far(grid: tuple[int, ...]) -> list[list[int]]:
    """Raster indices of a grid's cells, a plane at a time: all cells of one Manhattan distance from
    the first cell, in raster order (NAR, arXiv 2503.10696). Sides (s1, ..., sA) have
    s1 + ... + sA - A + 1 planes."""
    planes: list[list[int]] = [[] for _ in range(sum(grid) - len(grid) + 1)]
    for cell, places in enumerate(itertools.product(*map(range, grid))):
        planes[sum(places)].append(cell)
    return planes


def cells_before(grid: tuple[int, ...]) -> Tensor:
    """[A, L] int64: raster index of the cell before each cell along each axis; -1 = there is none,
    at the grid's edge."""
    places, cells = grid_positions(grid).long(), torch.arange(math.prod(grid))
    steps = [math.prod(grid[axis + 1 :]) for axis in range(len(grid))]
    rows = [torch.where(places[:, a] > 0, cells - step, -1) for a, step in enumerate(steps)]
    return torch.stack(rows)
