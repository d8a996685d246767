"""A KV cache for steps of one query on CPUs: keys in segments, each contiguous for all heads.

A batched product over the first L of a cache's places runs at half the speed of one over contiguous
matrices. Segments of 32 places are contiguous, and those behind what is there are not read; the
last one is read whole, its empty places masked.
Letters: B batch, n positions, M keys, h heads, d width of a head, S segments, G places of each.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vistok.layers.attention import KVCache

_PLACES = 32  # G


class SegmentedCache(KVCache):
    """Keys and values [S, B, h, G, d] of the positions seen so far, written in place."""

    def __init__(self, batch: int, heads: int, capacity: int, head_dim: int, like: Tensor) -> None:
        self.capacity, count = capacity, -(-capacity // _PLACES)
        shape = (count, batch, heads, _PLACES, head_dim)
        self.keys, self.values = like.new_zeros(shape), like.new_zeros(shape)
        self.length = 0

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store [B, h, n, d]; copies of all keys and values so far, for several queries."""
        places = self.places
        if places is None:
            places = torch.arange(self.length, self.length + keys.shape[2], device=keys.device)
            self.length += keys.shape[2]
            places = places.expand(len(keys), -1)
        rows = torch.arange(len(keys), device=keys.device)[:, None]
        reach = self.after(0)
        found = []
        for held, new in ((self.keys, keys), (self.values, values)):
            new = new.transpose(1, 2).to(held.dtype)  # under autocast it is narrower
            held[places // _PLACES, rows, :, places % _PLACES] = new
            whole = held.permute(1, 2, 0, 3, 4).flatten(2, 3)
            found.append(whole[:, :, :reach])
        return found[0], found[1]

    def after(self, count: int) -> int:
        if self.places is None:
            return self.length + count
        return self.capacity if self.reach is None else self.reach

    def attend(self, q: Tensor, keys: Tensor, values: Tensor, scale: float | None) -> Tensor | None:
        if self.places is not None:
            return None
        batch, heads, _, width = q.shape
        at, rows = self.length, batch * heads
        self.keys[at // _PLACES, :, :, at % _PLACES] = keys[:, :, 0]
        self.values[at // _PLACES, :, :, at % _PLACES] = values[:, :, 0]
        self.length = at + 1
        count = at // _PLACES + 1
        if scale != 1.0:
            q = q * (width**-0.5 if scale is None else scale)
        q = q.reshape(1, rows, 1, width).expand(count, -1, -1, -1)
        q = q.reshape(count * rows, 1, width)
        flat = lambda held: held[:count].view(count * rows, _PLACES, width)
        scores = torch.bmm(q, flat(self.keys).transpose(1, 2)).view(count, rows, _PLACES)
        scores[-1, :, at % _PLACES + 1 :] = -torch.inf
        weights = scores.transpose(0, 1).reshape(rows, -1).softmax(-1)
        weights = weights.view(rows, count, _PLACES).transpose(0, 1)
        parts = torch.bmm(weights.reshape(count * rows, 1, _PLACES), flat(self.values))
        return parts.view(count, batch, heads, 1, width).sum(0)
