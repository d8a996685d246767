"""Nearest samples of one set for each sample of another: exact, block by block, the same anywhere.

Vectors are rounded to whole numbers on a grid fine enough that no sum leaves the 53 bits of a
double, so every squared distance is exact and does not depend on block sizes, devices or the order
of sums. Distances are compared as fp32 numbers; ties go to the lower index.

Letters: n queries, m samples to choose from, D width, k neighbors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vistok.core.errors import InputError

_QUERIES = 1024  # queries at a time
_SAMPLES = 4096  # samples at a time
_NUMBERS = 2**24  # of a block of vectors: 128 MB of doubles
_PLACES = 2**31  # samples that the lower half of a key can number
_NEVER = 2**63 - 1


class Vectors(NamedTuple):
    """A set of vectors that is read block by block, since all of them may not fit in memory."""

    count: int
    width: int
    read: Callable[[int, int], Tensor]  # (start, stop) -> [stop - start, D] of any float type

    @classmethod
    def of(cls, values: Tensor) -> Vectors:
        """A set that lies in memory: [n, D]."""
        return cls(len(values), values.shape[1], lambda start, stop: values[start:stop])

    def blocks(self, most: int) -> list[tuple[int, int]]:
        """(start, stop) of blocks of at most `most` vectors."""
        size = max(1, min(most, _NUMBERS // max(1, self.width)))
        return [(one, min(one + size, self.count)) for one in range(0, self.count, size)]

    def largest(self) -> float:
        """The largest absolute coordinate; InputError for one that is not finite."""
        found = [self.read(*block).abs().max().double() for block in self.blocks(_SAMPLES)]
        largest = float(torch.stack(found).max())  # NaN if one is
        if not math.isfinite(largest):
            raise InputError(f"a coordinate is {largest}; expected finite vectors")
        return largest


class Near(NamedTuple):
    """The k nearest samples of each query, nearest first."""

    index: Tensor  # [n, k] int64
    squares: Tensor  # [n, k] float64: squared distances, of fp32 precision


def nearest_samples(
    queries: Vectors,
    samples: Vectors,
    count: int = 1,
    exclude: Tensor | None = None,
    share: tuple[int, int] = (0, 1),
    advance: Callable[[int], None] = lambda rows: None,
) -> Near:
    """The `count` samples with the smallest squared Euclidean distance to each query.

    Args:
        exclude: [n] index of the one sample that a query must not choose, itself; -1 for none.
        share: (rank, world): this process takes every world-th block of queries and leaves zeros
            for the others, so that the sum over processes is the whole.
        advance: told the queries that were done.

    Raises InputError for sets of two widths, for values that are not finite, and for fewer samples
    than are asked for.
    """
    needed = count + (exclude is not None)
    if queries.width != samples.width or min(queries.count, queries.width) < 1:
        raise InputError(
            f"neighbors of {queries.count} vectors of width {queries.width} among those of width "
            f"{samples.width}; expected one width, and one vector or more"
        )
    if not needed <= samples.count < _PLACES:
        raise InputError(
            f"{count} neighbors of a sample among {samples.count}; expected {needed} samples or "
            f"more, and fewer than {_PLACES:,}"
        )
    scale = grid_scale(max(queries.largest(), samples.largest()), queries.width)
    device = queries.read(0, 1).device
    index = torch.zeros((queries.count, count), dtype=torch.int64, device=device)
    squares = torch.zeros((queries.count, count), dtype=torch.float64, device=device)
    rank, world = share
    for start, stop in queries.blocks(_QUERIES)[rank::world]:
        own = None if exclude is None else exclude[start:stop].to(device)
        best = _best(_rounded(queries, start, stop, scale), samples, scale, count, own)
        index[start:stop] = best & (_PLACES * 2 - 1)
        exact = (best >> 32).int().view(torch.float32).double()
        squares[start:stop] = exact / scale**2
        advance(stop - start)
    return Near(index, squares)


def grid_scale(largest: float, width: int) -> float:
    """Factor by which coordinates are multiplied before they are rounded to whole numbers.

    Of D coordinates up to M, |a|^2 + |b|^2 - 2 a.b and all its parts are at most 4 D M^2, which
    must not exceed 2^53; so M = sqrt(2^51 / D). The factor is a power of two: coordinates that are
    halves, quarters, ... (levels of FSQ, signs of binary codes) stay what they are.
    """
    if largest == 0:
        return 1.0
    return 2.0 ** math.floor(math.log2(math.floor(math.sqrt(2**51 / width)) / largest))


def _rounded(vectors: Vectors, start: int, stop: int, scale: float) -> Tensor:
    """[stop - start, D] whole numbers as float64."""
    return (vectors.read(start, stop).double() * scale).round()


def _best(
    rows: Tensor, samples: Vectors, scale: float, count: int, exclude: Tensor | None
) -> Tensor:
    """[b, count] keys: the bits of the fp32 squared distance, then the sample's index.

    Bits of numbers that are not negative are ordered as the numbers, so one int64 holds both.
    """
    lengths = (rows**2).sum(1)[:, None]
    best = rows.new_zeros((len(rows), 0), dtype=torch.int64)
    for start, stop in samples.blocks(_SAMPLES):
        other = _rounded(samples, start, stop, scale)
        exact = lengths + (other**2).sum(1) - 2 * rows @ other.T
        places = torch.arange(start, stop, device=rows.device)
        keys = (exact.float().view(torch.int32).long() << 32) + places
        if exclude is not None:
            keys = keys.masked_fill(places == exclude[:, None], _NEVER)
        best = torch.cat([best, keys], 1)
        best = best.topk(min(count, best.shape[1]), dim=1, largest=False).values
    return best
