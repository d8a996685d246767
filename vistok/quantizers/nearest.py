"""The k nearest codes, exactly, with ties going to the lower index.

Two ways: score every code of a table in chunks, or, for codes that are a grid of digits with a
separable distance (FSQ, LFQ, binary), merge digit by digit and never list the whole grid.
"""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK = 2**24  # scores held at a time: 64 MB in fp32


def squared_distances(a: Tensor, codes: Tensor) -> Tensor:
    """|a|^2 + |e|^2 - 2 a.e in fp32; a [n, d], codes [K, d] -> [n, K]."""
    return a.square().sum(-1, keepdim=True) + codes.square().sum(-1) - 2.0 * (a @ codes.T)


def nearest_code(a: Tensor, codes: Tensor) -> Tensor:
    """[n, d], [K, d] -> [n] int64, the argmin of the squared distance, in chunks."""
    return torch.cat([squared_distances(c, codes).argmin(-1) for c in _chunks(a, codes)])


def nearest_codes(a: Tensor, codes: Tensor, count: int) -> Tensor:
    """[n, d], [K, d] -> [n, count] int64, nearest first; count is clipped to K."""
    count = min(count, len(codes))
    return torch.cat([_smallest(squared_distances(c, codes), count) for c in _chunks(a, codes)])


def _chunks(a: Tensor, codes: Tensor) -> tuple[Tensor, ...]:
    """Rows of a whose scores fit; the same for both ways, so that they round alike."""
    return a.split(max(1, _CHUNK // (2 * len(codes))))


def _smallest(scores: Tensor, count: int) -> Tensor:
    """Columns of the `count` smallest fp32 scores a row, stable: equal scores by column."""
    # A float's bits, with negatives mirrored, order like the float: (score, column) is one integer.
    bits = (scores + 0.0).view(torch.int32).long()
    ordered = torch.where(bits < 0, -(2**31) - bits - 1, bits)
    keys = (ordered << 32) + torch.arange(scores.shape[1], device=scores.device)
    return keys.topk(count, dim=-1, largest=False, sorted=True).values & 0xFFFFFFFF


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
