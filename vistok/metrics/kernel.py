"""KID: squared maximum mean discrepancy under a polynomial kernel (Bińkowski et al. 2018).

MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean k(x_i, y_j)
k(x, y) = (x . y / D + 1)^3

The unbiased estimate may be a little below 0. It is averaged over random subsets; their draws are
torch-fidelity's (NumPy's legacy generator, seed 2020), so that the same features give its number.
Everything is computed in fp64.

Letters: n samples, m samples of a subset, D feature width.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vistok.core.errors import InputError

SUBSETS, SIZE, SEED = 100, 1000, 2020


class KIDResult(NamedTuple):
    """Mean and spread (divisor n) over subsets."""

    mean: float
    std: float
    subsets: int
    size: int


def polynomial_mmd(x: Tensor, y: Tensor) -> float:
    """Unbiased MMD^2 of two subsets [m, D], [m', D]; ValueError for fewer than two samples."""
    if x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise InputError(
            f"KID of {tuple(x.shape)} and {tuple(y.shape)}; expected one width, 2 samples or more"
        )
    x, y = x.double(), y.double()
    kernel = lambda a, b: (a @ b.T / a.shape[1] + 1) ** 3
    within = lambda k: (k.sum() - k.diagonal().sum()) / (len(k) * (len(k) - 1))
    return float(within(kernel(x, x)) + within(kernel(y, y)) - 2 * kernel(x, y).mean())


def kid(
    x: Tensor, y: Tensor, subsets: int = SUBSETS, size: int = SIZE, seed: int = SEED
) -> KIDResult:
    """KID of two sets [n, D], [n', D] in a fixed order; ValueError if a set is too small."""
    if min(len(x), len(y)) < size:
        raise InputError(
            f"KID subsets of {size} from sets of {len(x)} and {len(y)} samples; expected sets of "
            f"that size or more: take smaller subsets, and say so"
        )
    random = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        rows_x = torch.from_numpy(random.choice(len(x), size, replace=False)).to(x.device)
        rows_y = torch.from_numpy(random.choice(len(y), size, replace=False)).to(y.device)
        values.append(polynomial_mmd(x[rows_x], y[rows_y]))
    return KIDResult(float(np.mean(values)), float(np.std(values)), subsets, size)
