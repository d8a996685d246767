"""The k nearest codes, exactly, with ties going to the lower index.

Two ways: score every code of a table tile by tile, or, for codes that are a grid of digits with a
separable distance (FSQ, LFQ, binary), merge digit by digit and never list the whole grid.
Letters: n vectors, K codes, d width of both.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

# Scores held at a time. 16 MB on CPUs, where they then stay in the cache between the product that
# writes them and the search that reads them; GPUs want fewer and larger kernels.
_ROWS, _CODES = 1024, 4096
_ROWS_GPU, _CODES_GPU = 4096, 16384
_BLOCK = 64
_MERGED, _MERGED_GPU = 2**23, 2**28  # keys held at a time by a search for many codes
_NARROW = 3  # d up to which distances are taken number by number
_CHUNK = 2**24  # entries held at a time by the merge of digits


def nearest_code(a: Tensor, codes: Tensor, inner: bool = False) -> Tensor:
    """[n, d], [K, d] -> [n] int64, the argmin of the squared distance; never holds n x K.

    Args:
        inner: the argmax of the inner product instead.
    """
    return torch.cat([_nearest(rows, codes, inner) for rows in _rows(a)])


def nearest_codes(a: Tensor, codes: Tensor, count: int, inner: bool = False) -> Tensor:
    """[n, d], [K, d] -> [n, count] int64, nearest first (`inner`: the largest inner product first);
    count is clipped to K."""
    count = min(count, len(codes))
    lowest = lambda keys: torch.cat(keys, dim=1).topk(count, dim=1, largest=False, sorted=False)
    found = []
    for rows in _rows(a, count):
        keys, columns = [], 0
        for first, scores in _tiles(rows, codes, inner):
            keys.append(_keys(scores, first))
            columns += scores.shape[1]
            if columns >= 2 * count:  # seldom where count is large: a merge reads all that is kept
                keys, columns = [lowest(keys).values], count
        found.append(lowest(keys).values.sort(dim=1).values & 0xFFFFFFFF)
    return torch.cat(found)


def _rows(a: Tensor, count: int = 0) -> tuple[Tensor, ...]:
    """`a` in pieces whose scores, and up to two times `count` keys of each, fit."""
    on_cpu = a.device.type == "cpu"
    rows, codes, merged = (
        (_ROWS, _CODES, _MERGED) if on_cpu else (_ROWS_GPU, _CODES_GPU, _MERGED_GPU)
    )
    return a.split(max(1, min(rows, merged // (2 * count + codes))))


def _tiles(a: Tensor, codes: Tensor, inner: bool = False) -> Iterator[tuple[int, Tensor]]:
    """(first code, |e|^2 - 2 a.e [n, tile] fp32): squared distances less the |a|^2 of the row.

    The same tiles for one nearest code and for many, so that they round alike. Of vectors of a few
    numbers the squared distances themselves: there codes lie so near each other that the product's
    rounding would swap them, and a code would not be its own nearest. `inner`: -2 a.e alone.
    """
    squares = codes.new_zeros(len(codes)) if inner else codes.square().sum(-1)
    width = _CODES if a.device.type == "cpu" else _CODES_GPU
    for first in range(0, len(codes), width):
        part = slice(first, first + width)
        if a.shape[1] <= _NARROW and not inner:
            columns = zip(a.unbind(1), codes[part].unbind(1), strict=True)
            yield first, sum((x[:, None] - e).square() for x, e in columns)
        else:
            yield first, torch.addmm(squares[part], a, codes[part].T, alpha=-2.0)


def _nearest(a: Tensor, codes: Tensor, inner: bool) -> Tensor:
    """The argmin of each row over all tiles."""
    low = at = None
    for first, scores in _tiles(a, codes, inner):
        value, column = _lowest(scores)
        if low is None:
            low, at = value, column
        else:
            nearer = value < low  # strictly: equal scores stay with the lower index
            low, at = torch.where(nearer, value, low), torch.where(nearer, column + first, at)
    return at


def _lowest(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest score of each row and its first column."""
    if scores.device.type != "cpu" or scores.shape[1] % _BLOCK or scores.shape[1] == _BLOCK:
        return scores.min(-1)
    # On CPUs `min` with an index goes number by number, `amin` uses vectors: find the block first.
    blocks = scores.unflatten(1, (-1, _BLOCK))
    low, block = blocks.amin(-1).min(-1)
    inside = blocks.gather(1, block[:, None, None].expand(-1, 1, _BLOCK))[:, 0].argmin(-1)
    return low, block * _BLOCK + inside


def _keys(scores: Tensor, first: int) -> Tensor:
    """int64 numbers in the order of (fp32 score, code), the code in the lower 32 bits."""
    # A float's bits, with negatives mirrored, order like the float.
    bits = (scores + 0.0).view(torch.int32).long()
    ordered = torch.where(bits < 0, -(2**31) - bits - 1, bits)
    return (ordered << 32) + torch.arange(first, first + scores.shape[1], device=scores.device)


def nearest_on_grid(costs: list[Tensor], count: int, flips: bool = False) -> Tensor:
    """The `count` cheapest digit strings when a string costs the sum of its digits' costs.

    Args:
        costs: for each digit [n, V_i] fp32, the cost of each of its values.
        flips: break ties by how many digits are not their own cheapest first (pFID-v1's rule for
            bits), then by index; otherwise by index alone (first digit fastest).
    Returns:
        [n, count, F] int64 digits, cheapest first; count is clipped to the number of strings.
    """
    widest = max(cost.shape[1] for cost in costs)
    rows = max(1, _CHUNK // (count * widest * len(costs)))
    chunks = zip(*(cost.split(rows) for cost in costs), strict=True)
    return torch.cat([_merge(list(chunk), count, flips) for chunk in chunks])


def _merge(costs: list[Tensor], count: int, flips: bool) -> Tensor:
    """Digit by digit: extend the strings kept so far by every value, keep the cheapest `count`."""
    rows = len(costs[0])
    total = costs[0].new_zeros(rows, 1, dtype=torch.float64)
    changed = torch.zeros(rows, 1, dtype=torch.long, device=total.device)
    steps: list[tuple[Tensor, int]] = []  # which of the extended strings were kept; held before
    for cost in costs:
        held = total.shape[1]
        move = torch.ones_like(cost, dtype=torch.long)
        move.scatter_(1, cost.argmin(-1, keepdim=True), 0)
        # The new digit is the slower one, so it goes outside; strings that share it and cost the
        # same are in the order of their indices already. Stable sorts then settle ties by index.
        total = (cost.double()[:, :, None] + total[:, None, :]).flatten(1)
        changed = (move[:, :, None] + changed[:, None, :]).flatten(1)
        order = _stable_order(total, changed if flips else None)[:, :count]
        total, changed = total.gather(1, order), changed.gather(1, order)
        steps.append((order, held))
    at = torch.arange(total.shape[1], device=total.device).expand_as(total)
    digits = []
    for order, held in reversed(steps):
        string = order.gather(1, at)
        digits.append(string // held)
        at = string % held
    return torch.stack(digits[::-1], dim=-1)


def _stable_order(total: Tensor, changed: Tensor | None) -> Tensor:
    """Row-wise argsort by (total, changed, column)."""
    if changed is None:
        return total.argsort(dim=1, stable=True)
    order = changed.argsort(dim=1, stable=True)
    return order.gather(1, total.gather(1, order).argsort(dim=1, stable=True))
