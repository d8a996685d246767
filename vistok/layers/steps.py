"""A transformer's step of one position per row, with as few calls of torch as it can do with.

At a few rows a call takes as long to launch as to compute, so a step leaves out whatever does
nothing in evaluation (dropout, skipped branches), rotates queries and keys in one product of
complex numbers, which also scales the queries, adds in place, and pads its rows once. Results
differ from those of the transformer's own formula by roundings of fp32.
Letters: R rows, D width, h heads, d width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vistok.layers.packed_linear import LEAST
from vistok.layers.positions import MixedTables, rotate
from vistok.layers.segments import SegmentedCache
from vistok.layers.transformer import Block, Transformer


class StepTransformer(Transformer):
    """A transformer in evaluation mode whose steps of one position take the short way."""

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor] | None = None,
        mask: Tensor | None = None,
        causal: bool = False,
        caches: list | None = None,
        only: slice | None = None,
        vector: Tensor | None = None,
        lengths: list[int] | None = None,
    ) -> Tensor:
        plain = causal and mask is None and only is None and vector is None and not self.training
        if not (plain and caches and x.shape[1] == 1 and _steps(caches[0])):
            return super().forward(x, rotary, mask, causal, caches, only, vector, lengths)
        with torch.inference_mode():
            turn = _turn(rotary, self.blocks[0].attention.scale, self.config)
            rows = len(x)
            x = torch.cat([x, x.new_zeros(max(LEAST - rows, 0), *x.shape[1:])])
            for block, cache in zip(self.blocks, caches, strict=True):
                _step(block, x, rows, rotary, turn, cache)
            return self.norm(x)[:rows]


def _steps(cache: object) -> bool:
    """True for a cache that takes one position of every row, at the same place."""
    return isinstance(cache, SegmentedCache) and cache.places is None


def _turn(rotary: tuple[Tensor, Tensor] | None, scale: float | None, config) -> Tensor | None:
    """Complex factors [2, 1, d / 2] of queries, which are scaled too, and keys; None if the
    positions are no rotation of adjacent channels."""
    if rotary is None or isinstance(rotary, MixedTables):
        return None
    factor = (config.width // config.heads) ** -0.5 if scale is None else scale
    wide = torch.promote_types(rotary[0].dtype, torch.float32)
    turn = torch.complex(*(table.to(wide) for table in rotary))
    return torch.stack([turn * factor, turn])


def _step(
    block: Block,
    x: Tensor,
    rows: int,
    rotary: tuple[Tensor, Tensor] | None,
    turn: Tensor | None,
    cache: SegmentedCache,
) -> None:
    """Add both branches of a block to x [R or more, 1, D].

    Args:
        rows: R; those behind them fill x up.
    """
    layer, scale = block.attention, block.attention.scale
    both = layer.qkv(block.norm_attention(x))[:rows].view(rows, 3, layer.heads, -1)
    q, k, v = both.unsqueeze(3).unbind(1)  # [R, h, 1, d]
    normed = type(layer.norm_q) is not nn.Identity
    if normed:
        q, k = layer.norm_q(q).to(v.dtype), layer.norm_k(k).to(v.dtype)
    if turn is not None:
        pairs = (torch.stack([q, k], dim=1) if normed else both[:, :2]).to(turn.dtype.to_real())
        pairs = torch.view_as_complex(pairs.view(rows, 2, layer.heads, -1, 2))
        pairs = torch.view_as_real(pairs * turn).view(rows, 2, layer.heads, 1, -1)
        (q, k), scale = pairs.to(v.dtype).unbind(1), 1.0
    elif rotary is not None:
        q, k = rotate(q, rotary), rotate(k, rotary)
    y = cache.attend(q, k, v, scale)
    x[:rows] += block.scale_attention(layer.out(y.reshape(rows, 1, -1)))
    x += block.scale_mlp(block.mlp(block.norm_mlp(x)))
