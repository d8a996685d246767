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
    rows = max(1, _CHUNK // len(codes))
    parts = [squared_distances(chunk, codes).argmin(-1) for chunk in a.split(rows)]
    return torch.cat(parts) if parts else a.new_zeros(0, dtype=torch.long)


def nearest_codes(a: Tensor, codes: Tensor, count: int) -> Tensor:
    """[n, d], [K, d] -> [n, count] int64, nearest first; count is clipped to K."""
    count = min(count, len(codes))
    rows = max(1, _CHUNK // (2 * len(codes)))
    return torch.cat([_smallest(squared_distances(c, codes), count) for c in a.split(rows)])


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
    rows = len(costs[0])
    total = costs[0].new_zeros(rows, 1, dtype=torch.float64)
    changed = torch.zeros(rows, 1, dtype=torch.long, device=total.device)
    digits = torch.zeros(rows, 1, 0, dtype=torch.long, device=total.device)
    for cost in costs:
        values = cost.shape[1]
        move = torch.ones(rows, values, dtype=torch.long, device=cost.device)
        move.scatter_(1, cost.argmin(-1, keepdim=True), 0)
        # Index order of the longer strings: the new digit is the slower one, so it goes outside.
        total = (cost.double()[:, :, None] + total[:, None, :]).flatten(1)
        changed = (move[:, :, None] + changed[:, None, :]).flatten(1)
        held = digits.shape[1]
        digits = digits[:, None].expand(-1, values, -1, -1).reshape(rows, values * held, -1)
        new = torch.arange(values, device=cost.device).repeat_interleave(held)
        digits = torch.cat([digits, new[None, :, None].expand(rows, -1, 1)], dim=-1)
        order = _order(total, changed if flips else None, digits)[:, :count]
        total, changed = total.gather(1, order), changed.gather(1, order)
        digits = digits.gather(1, order[..., None].expand(-1, -1, digits.shape[-1]))
    return digits


def _order(total: Tensor, changed: Tensor | None, digits: Tensor) -> Tensor:
    """Row-wise argsort by (total, changed, digits from the slowest on)."""
    order = torch.arange(total.shape[1], device=total.device).expand_as(total)
    # Least significant key first; each later stable sort keeps what the earlier ones settled.
    keys = [digits[..., f] for f in range(digits.shape[-1])]
    keys += ([] if changed is None else [changed]) + [total]
    for key in keys:
        order = order.gather(1, key.gather(1, order).argsort(dim=1, stable=True))
    return order
