"""A stage of the network that predicts velocities of cells: a linear map, positions, a transformer.

xAR (arXiv 2502.20388) calls its two stages encoder and decoder; both see the same positions.
Letters: R rows, n positions that are read, L positions of a whole sequence, D width, C channels,
A axes, S cells, d width of a head.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from vistok.config import Config
from vistok.core.errors import InputError
from vistok.layers.attention import KVCache
from vistok.layers.norms import make_norm
from vistok.layers.positions import rotary_table
from vistok.layers.transformer import Transformer, TransformerConfig


class SecondStageConfig(Config):
    """A second stage behind the first, of the same width."""

    depth: int = Field(default=8, ge=1, le=512)
    heads: int | None = Field(default=None, ge=1, le=512)
    """Heads of its attention; null = as the first stage's."""


class CellStage(nn.Module):
    """Linear map, position table, perhaps a norm, blocks, a norm; [R, n, C] -> [R, n, D]."""

    def __init__(
        self,
        config: TransformerConfig,
        channels: int,
        places: Tensor,
        table: bool,
        rope_base: float | None,
        norm_in: bool,
    ) -> None:
        """
        Args:
            config: of the transformer, whose vectors have its own width.
            channels: C. places: [L, A] coordinates of the positions in the order of generation.
            table: learned positions. rope_base: of rotary ones; None = none.
            norm_in: a norm between the position table and the blocks.
        """
        super().__init__()
        width = config.width
        own = {"modulation": width, "norm_out": False}
        self.project = nn.Linear(channels, width)
        self.table = nn.Parameter(torch.empty(len(places), width)) if table else None
        norm = lambda: make_norm(config.norm, width, config.norm_eps)
        self.norm_in = norm() if norm_in else nn.Identity()
        self.transformer = Transformer(config.model_copy(update=own))
        self.norm = norm()
        self.rope_base = rope_base
        if rope_base is not None:
            head, axes = width // config.heads, places.shape[-1]
            if head // 2 < axes:
                raise InputError(
                    f"rope=true with heads of {head} channels, which turn {head // 2} pairs, for "
                    f"{axes} axes of positions; expected fewer heads, or rope=false"
                )
            cos, sin = rotary_table(places, head, rope_base)
            self.register_buffer("rotary_cos", cos, persistent=False)
            self.register_buffer("rotary_sin", sin, persistent=False)

    def forward(
        self,
        x: Tensor,
        vectors: Tensor,
        rows: slice,
        lengths: tuple[int, ...] | None = None,
        mask: Tensor | None = None,
        caches: list[KVCache] | None = None,
    ) -> Tensor:
        """
        Args:
            x: [R, n, C], positions `rows` of the sequence; what is in the caches comes before them.
            vectors: [R, S, D] that modulate each cell, of `lengths` positions; None = of one each.
            mask: [n, n] or more, bool: who may look.
        """
        x = self.project(x)
        if self.table is not None:
            x = x + self.table[rows].to(x.dtype)
        x = self.norm_in(x)
        rotary = None
        if self.rope_base is not None:
            rotary = self.rotary_cos[rows], self.rotary_sin[rows]
        x = self.transformer(x, rotary, mask, caches=caches, vector=vectors, lengths=lengths)
        return self.norm(x)
