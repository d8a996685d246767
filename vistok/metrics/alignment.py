"""CKNNA: do two representations call the same samples neighbors? (Huh et al. 2024, "The Platonic
Representation Hypothesis", arXiv 2405.07987; REPA reports it, arXiv 2410.06940.)

Features are normalized to length 1; K = A A^T and L = B B^T. Each row keeps its k largest entries,
the diagonal left out: masks M_K, M_L. With HSIC the unbiased estimate (Song et al. 2012, eq. 5),

    CKNNA(A, B) = s(K, L) / (sqrt(s(K, K) s(L, L)) + 1e-6),  s(K, L) = HSIC(M K, M L), M = M_K M_L
    HSIC(X, Y) = (tr XY + (1'X1)(1'Y1) / ((n-1)(n-2)) - 2 1'XY1 / (n-2)) / (n (n-3))

as in the authors' public code, the 1e-6 included. 1: the same neighbors at the same similarities;
about 0: chance. Only the n k entries that a mask keeps are ever held.

Letters: n samples, D widths, k neighbors.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vistok.core.errors import InputError
from vistok.metrics.nearest_samples import Vectors, nearest_samples

NEIGHBORS = 10


def cknna(
    a: Tensor,
    b: Tensor,
    k: int = NEIGHBORS,
    advance: Callable[[int], None] = lambda rows: None,
) -> float:
    """Alignment of features [n, D1] and [n, D2] of the same samples, in float64.

    `advance` is told the rows that were done, 2 n in all. NaN if no sample's neighbors are mutual.
    Raises InputError for k < 2, or fewer than k + 2 or 4 samples.
    """
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b) or k < 2 or len(a) < max(4, k + 2):
        raise InputError(
            f"CKNNA of {tuple(a.shape)} and {tuple(b.shape)} with {k} neighbors; expected features "
            f"[n, D] of the same {max(4, k + 2)} samples or more, and k of 2 or more"
        )
    first, second = (_Kernel(one, k, advance) for one in (a, b))
    both = first.places[torch.isin(first.places, second.places)]
    count = len(a)
    cross = _hsic(both, first.at(both), second.at(both), count)
    own = [_hsic(one.places, one.values, one.values, count) for one in (first, second)]
    below = own[0] * own[1]
    return cross / (math.sqrt(below) + 1e-6) if below > 0 else math.nan


class _Kernel:
    """The entries of A A^T that a mask keeps: `places` i n + j in order, and their values."""

    def __init__(self, features: Tensor, k: int, advance: Callable[[int], None]) -> None:
        unit = features.double()
        unit = unit / unit.norm(dim=1, keepdim=True).clamp_min(1e-12)
        count = len(unit)
        itself = torch.arange(count, device=unit.device)
        vectors = Vectors.of(unit)
        near = nearest_samples(vectors, vectors, k, itself, advance=advance).index  # [n, k]
        near = near.sort(1).values
        self.places = (itself[:, None] * count + near).flatten()
        rows = zip(unit.split(256), near.split(256), strict=True)
        values = [torch.einsum("nd,nkd->nk", own, unit[other]) for own, other in rows]
        self.values = torch.cat(values).flatten()

    def at(self, places: Tensor) -> Tensor:
        """Values at some of the places, in order."""
        return self.values[torch.searchsorted(self.places, places)]


def _hsic(places: Tensor, x: Tensor, y: Tensor, n: int) -> float:
    """Unbiased HSIC of two n x n matrices with an empty diagonal that are zero but at `places`."""
    row, column = places // n, places % n
    mirrored = column * n + row
    present = torch.isin(mirrored, places)
    other = y[torch.searchsorted(places, mirrored[present])]
    trace = (x[present] * other).sum()
    columns = x.new_zeros(n).index_add_(0, column, x)
    rows = y.new_zeros(n).index_add_(0, row, y)
    product = columns @ rows  # 1' X Y 1
    total = x.sum() * y.sum() / ((n - 1) * (n - 2))
    return float((trace + total - 2 * product / (n - 2)) / (n * (n - 3)))
