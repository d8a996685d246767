"""Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020).

A set's manifold is the union of balls around its samples, each as large as the distance to the
sample's k-th neighbour (itself not counted; a distance equal to the radius is inside).

precision: share of generated samples inside a ball of a real one;  recall: the roles exchanged
density:   number of real balls a generated sample is in, over k;   coverage: share of real balls
           that hold a generated sample

Distances are Euclidean, in fp64, block by block: memory grows with n, not n^2.

Letters: n real samples, m generated ones, D feature width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from vistok.core.errors import InputError

_BLOCK = 2048  # rows of distances at a time
# Of the sum of squared lengths: what the three-term form of a squared distance may be off by.
# Two samples that are equal must have distance 0, or a radius of 0 would not hold them.
_NOISE = 1e-13


class PRDC(NamedTuple):
    precision: float
    recall: float
    density: float
    coverage: float


def prdc(
    generated: Tensor,
    real: Tensor,
    k: int = 3,
    k_density: int = 5,
    advance: Callable[[int], None] = lambda rows: None,
) -> PRDC:
    """The four measures of features [m, D] and [n, D]; k = 3 and 5 are the papers' choices.

    `advance` is told the rows that were done, 2 (n + m) in all. Raises ValueError for a set of k or
    fewer samples.
    """
    most = max(k, k_density)
    if generated.shape[1] != real.shape[1] or min(len(generated), len(real)) <= most:
        raise InputError(
            f"precision and recall of {tuple(generated.shape)} and {tuple(real.shape)}; expected "
            f"one width and more than {most} samples (neighbours)"
        )
    generated, real = generated.double(), real.double()
    radii, radii_density = _radii(real, (k, k_density), advance)
    (radii_generated,) = _radii(generated, (k,), advance)
    inside = balls = covered = recalled = 0
    for squares in _squares(generated, real, advance):  # [b, n]
        inside += int((squares <= radii).any(1).sum())
        balls += int((squares <= radii_density).sum())
    start = 0
    for squares in _squares(real, generated, advance):  # [b, m]
        recalled += int((squares <= radii_generated).any(1).sum())
        nearest = squares.min(1).values
        covered += int((nearest <= radii_density[start : start + len(nearest)]).sum())
        start += len(nearest)
    return PRDC(
        precision=inside / len(generated),
        recall=recalled / len(real),
        density=balls / (k_density * len(generated)),
        coverage=covered / len(real),
    )


def _radii(x: Tensor, ks: tuple[int, ...], advance: Callable[[int], None]) -> list[Tensor]:
    """Squared distance of each sample to its k-th neighbour, [n] for each k."""
    found = []
    for squares in _squares(x, x, advance):
        near = squares.topk(max(ks) + 1, dim=1, largest=False).values  # the first is itself: 0
        found.append(near[:, list(ks)])
    return list(torch.cat(found).unbind(1))


def _squares(a: Tensor, b: Tensor, advance: Callable[[int], None]) -> Iterator[Tensor]:
    """Blocks [rows, len(b)] of squared distances from a to b."""
    lengths = (b**2).sum(1)
    for rows in a.split(_BLOCK):
        scale = (rows**2).sum(1)[:, None] + lengths
        squares = scale - 2 * rows @ b.T
        yield squares.masked_fill_(squares < _NOISE * scale, 0)
        advance(len(rows))
