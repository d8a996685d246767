"""CMMD: squared maximum mean discrepancy of unit CLIP embeddings (Jayasumana et al. 2024).

MMD^2 = mean k(x_i, x_j) + mean k(y_i, y_j) - 2 mean k(x_i, y_j),   CMMD = 1000 MMD^2
k(x, y) = exp(-|x - y|^2 / (2 sigma^2)), sigma = 10                         (arXiv 2401.09603)

Means run over all pairs, each sample with itself too: the biased estimate (V-statistic; Gretton et
al. 2012, equation 5), as the paper's program computes it. Two sets of one distribution are thus a
little above 0, by 1000 (1/n + 1/m) (1 - mean k): about 0.001 for 10,000 each, 0.01 for 1,000.

Embeddings are those of `clip-cmmd`, of length 1. With s = x . y the kernel is then
exp(-0.01) (1 + 0.01 s + 0.00005 s^2 + ...), and the two first terms of the distance are known from
mean and second moments alone (`cmmd_of_statistics`): CMMD sees little beyond the mean embedding.

Letters: n, m samples, D feature width.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vistok.core.errors import InputError
from vistok.metrics.frechet import FeatureStats

SIGMA, SCALE = 10.0, 1000.0
_GAMMA = 1 / (2 * SIGMA**2)
_BLOCK = 2048  # rows of products at a time
# Each further term p is at most (2 gamma)^p / p! times 4, twice the largest length, squared.
REMAINDER = SCALE * 4 * sum((2 * _GAMMA) ** p / math.factorial(p) for p in range(3, 9))


def cmmd(x: Tensor, y: Tensor, advance: Callable[[int], None] = lambda rows: None) -> float:
    """CMMD of embeddings x [n, D] and y [m, D]; 0 for equal sets, never negative.

    Products are fp32 (on a GPU fp64, which no setting makes coarse) and sums fp64, block by block:
    memory grows with n + m. Time grows with (n + m)^2.

    Args:
        advance: told the rows that were done, 2 n + m in all.
    Raises ValueError for other shapes, an empty set, and values that are not finite.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 1:
        raise InputError(
            f"CMMD of {tuple(x.shape)} and {tuple(y.shape)}; expected [n, D] and [m, D], n, m >= 1"
        )
    if not (torch.isfinite(x).all() and torch.isfinite(y).all()):
        raise InputError("CMMD: embeddings are not all finite; look at the images")
    kind = torch.float64 if x.is_cuda else torch.float32
    x, y = x.to(kind), y.to(x.device, kind)
    # Of 1 - k, which is small: sums of k itself would lose digits.
    apart = _mean(x, y, advance)
    value = SCALE * (2 * apart - _mean(x, x, advance) - _mean(y, y, advance))
    return max(0.0, value)  # below 0 is rounding


def _mean(a: Tensor, b: Tensor, advance: Callable[[int], None]) -> float:
    """Mean over all pairs of 1 - k(a_i, b_j); of one set, each pair is computed once."""
    same = a is b
    lengths_a, lengths_b = ((rows.double() ** 2).sum(1).to(rows.dtype) for rows in (a, b))
    total = torch.zeros((), dtype=torch.float64, device=a.device)
    for start in range(0, len(a), _BLOCK):
        stop = min(start + _BLOCK, len(a))
        for first in range(start if same else 0, len(b), _BLOCK):
            last = min(first + _BLOCK, len(b))
            squares = (a[start:stop] @ b[first:last].T).mul_(-2)
            squares += lengths_a[start:stop, None] + lengths_b[first:last]
            if same and first == start:
                squares.fill_diagonal_(0)  # a sample and itself
            far = torch.expm1(squares.clamp_min_(0).mul_(-_GAMMA)).neg_()
            twice = 2 if same and first > start else 1
            total += twice * far.sum(dtype=torch.float64)
        advance(stop - start)
    return float(total) / (len(a) * len(b))


def cmmd_of_statistics(a: FeatureStats, b: FeatureStats) -> float:
    """CMMD from means and covariances of unit embeddings; below the exact one by next to nothing.

    1000 exp(-0.01) (0.01 |m1 - m2|^2 + 0.00005 |M1 - M2|^2), M the second moments; the terms left
    out are not negative, and below `REMAINDER` (0.0007) in any case. No vector is needed, so any
    number of samples, a resumed pass or a reference file will do.

    Raises ValueError for features that have not length 1, or not one width.
    """
    if a.dim != b.dim:
        raise InputError(f"CMMD of widths {a.dim} and {b.dim}; expected one network's embeddings")
    moments = []
    for side in (a, b):
        mean = torch.from_numpy(side.mean)
        second = torch.from_numpy(side.covariance(ddof=0)) + torch.outer(mean, mean)
        if abs(float(second.trace()) - 1) > 1e-3:
            raise InputError(
                f"CMMD of features whose squared length is {float(second.trace()):.4g} on average; "
                f"expected embeddings of length 1, as clip-cmmd gives them"
            )
        moments.append((mean, second))
    (mean_a, second_a), (mean_b, second_b) = moments
    first = 2 * _GAMMA * float((mean_a - mean_b).square().sum())
    square = (2 * _GAMMA) ** 2 / 2 * float((second_a - second_b).square().sum())
    return SCALE * math.exp(-2 * _GAMMA) * (first + square)
