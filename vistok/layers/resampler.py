"""Perceiver resampler: learned queries that read a memory of any length (Flamingo, arXiv
2204.14198; IP-Adapter's form, which Divot, TokensGen and TrajViT share).

Unlike a Q-Former's, its queries have no attention of their own: keys and values are those of the
memory *and* of the queries. Letters: B batch, N queries, M positions of the memory, C their width,
W width of a query, h heads, d width of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import Config
from vistok.core.errors import InputError
from vistok.core.shapes import Grid, cells
from vistok.layers.attention import attend
from vistok.layers.mlp import MlpKind, make_mlp
from vistok.layers.norms import make_norm
from vistok.layers.positions import grid_positions, rotary_table, rotate


class ResamplerConfig(Config):
    width: int = Field(default=1024, ge=2, le=2**14)
    """W, channels of a query."""
    depth: int = Field(default=6, ge=1, le=512)
    heads: int = Field(default=16, ge=1, le=512)
    head_width: int = Field(default=64, ge=2, le=2**12)
    """d, channels of a head, even; heads x head_width need not be the width."""
    mlp: MlpKind = "gelu"
    mlp_ratio: float = Field(default=4.0, ge=0, le=64)
    """Hidden width of the feed-forward layer, as a multiple of width; 0 = there is none (TrajViT).
    """
    mlp_norm: bool = True
    """A norm in front of the feed-forward layer; false: TokensGen."""
    mlp_bias: bool = False
    """Biases of the feed-forward layer; true: TokensGen."""
    norm_eps: float = Field(default=1e-5, gt=0)
    qk_norm: bool = False
    """LayerNorm of queries and keys, per head, with eps 1e-6 (TokensGen)."""
    rotary: bool = False
    """Rotary positions (base 10,000) of the memory's cells, and of queries that lie on a grid over
    the same extent (TokensGen)."""

    @classmethod
    def tiny(cls) -> ResamplerConfig:
        return cls(width=16, depth=1, heads=2, head_width=8)

    @model_validator(mode="after")
    def _pairs(self) -> ResamplerConfig:
        if self.head_width % 2:
            raise InputError(f"head_width={self.head_width}: expected an even number")
        return self


class ResamplerLayer(nn.Module):
    """Queries + attention to memory and queries, then + a feed-forward layer: [B, N, W]."""

    def __init__(self, config: ResamplerConfig) -> None:
        super().__init__()
        width, inner, eps = config.width, config.heads * config.head_width, config.norm_eps
        self.heads = config.heads
        self.norm_memory, self.norm_queries = nn.LayerNorm(width, eps), nn.LayerNorm(width, eps)
        self.q = nn.Linear(width, inner, bias=False)
        self.kv = nn.Linear(width, 2 * inner, bias=False)
        self.out = nn.Linear(inner, width, bias=False)
        kind = "layernorm" if config.qk_norm else "none"
        self.norm_q = make_norm(kind, config.head_width, 1e-6)
        self.norm_k = make_norm(kind, config.head_width, 1e-6)
        self.mlp = None
        if config.mlp_ratio:
            norm = nn.LayerNorm(width, eps) if config.mlp_norm else nn.Identity()
            hidden = max(int(width * config.mlp_ratio), 1)
            self.mlp = nn.Sequential(norm, make_mlp(config.mlp, width, hidden, config.mlp_bias))

    def forward(
        self,
        queries: Tensor,
        memory: Tensor,
        mask: Tensor | None,
        rotary: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]] | None,
    ) -> Tensor:
        """
        Args:
            queries: [B, N, W]. memory: [B, M, W]. mask: bool, broadcast to [B, h, N, M + N].
            rotary: cos and sin of the queries [N, d / 2], and of memory and queries [M + N, d / 2].
        """
        asked = self.norm_queries(queries)
        keys = torch.cat([self.norm_memory(memory), asked], dim=1)
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.q(asked), *self.kv(keys).chunk(2, dim=-1))
        )
        q, k = self.norm_q(q).to(v.dtype), self.norm_k(k).to(v.dtype)
        if rotary is not None:
            q, k = rotate(q, rotary[0]), rotate(k, rotary[1])
        queries = queries + self.out(attend(q, k, v, mask, False).transpose(1, 2).flatten(2))
        return queries if self.mlp is None else queries + self.mlp(queries)


class Resampler(nn.Module):
    """Memory [B, M, C] -> its queries' states [B, N, W]."""

    def __init__(
        self, config: ResamplerConfig, dim: int, queries: Grid, memory: Grid | None = None
    ) -> None:
        """
        Args:
            dim: C, width of the memory. queries: (N,), or the grid that they lie on.
            memory: its grid, for rotary positions; with a grid of queries of as many sides.
        """
        super().__init__()
        count, width = cells(queries), config.width
        self.proj = nn.Linear(dim, width)
        self.queries = nn.Parameter(torch.randn(count, width) * width**-0.5)
        self.layers = nn.ModuleList(ResamplerLayer(config) for _ in range(config.depth))
        cos = sin = None
        if config.rotary:
            if memory is None or len(memory) != len(queries):
                raise InputError(
                    f"resampler.rotary: queries={tuple(queries)} and a memory of {memory}; "
                    "expected grids of as many sides, or rotary=false"
                )
            places = torch.cat([grid_positions(memory), spread(queries, memory)])
            cos, sin = rotary_table(places, config.head_width)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, memory: Tensor, present: Tensor | None = None) -> Tensor:
        """
        Args:
            present: [B, M] bool, positions of the memory that are there; None = all.
        """
        memory, count = self.proj(memory), len(self.queries)
        queries = self.queries.to(memory.dtype).expand(len(memory), -1, -1)
        mask, rotary = None, None
        if present is not None:
            mask = F.pad(present, (0, count), value=True)[:, None, None]
        if self.cos is not None:
            both = (self.cos, self.sin)
            rotary = tuple(table[-count:] for table in both), both
        for layer in self.layers:
            queries = layer(queries, memory, mask, rotary)
        return queries


def spread(grid: Grid, over: Grid) -> Tensor:
    """[N, A]: centers of a grid's cells in the coordinates of another grid over the same extent."""
    ratio = torch.tensor([big / small for small, big in zip(grid, over, strict=True)])
    return (grid_positions(grid) + 0.5) * ratio - 0.5
