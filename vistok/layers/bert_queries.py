"""BERT's transformer over learned queries that read a memory (BLIP-2's Q-Former, arXiv 2301.12597).

Post-norm blocks as in `layers/bert`; every `cross_every`-th one, the first included, also attends
to the memory. SEED (arXiv 2307.08041) lets the queries see those before them alone.
Letters: B batch, N queries, W their width, M positions of the memory, C its channels.
"""

from __future__ import annotations

import torch
from einops import rearrange
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import Config
from vistok.core.errors import InputError
from vistok.layers.attention import Attention, attend
from vistok.layers.dropout import Dropout
from vistok.layers.mlp import make_mlp


class BertQueriesConfig(Config):
    width: int = Field(default=768, ge=1, le=2**14)
    """W, channels of a query; a multiple of heads."""
    depth: int = Field(default=12, ge=1, le=512)
    heads: int = Field(default=12, ge=1, le=512)
    cross_every: int = Field(default=2, ge=1, le=512)
    """Blocks from one that reads the memory to the next; the first one does."""
    causal: bool = True
    """Query i sees queries 0..i alone."""
    mlp_ratio: float = Field(default=4.0, gt=0, le=64)
    """Hidden width of the feed-forward layer, as a multiple of width (rounded)."""
    norm_eps: float = Field(default=1e-12, gt=0, le=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of activations of the branches that training drops, keyed by sample."""

    @classmethod
    def tiny(cls) -> BertQueriesConfig:
        return cls(width=16, depth=1, heads=2)

    @model_validator(mode="after")
    def _divides(self) -> BertQueriesConfig:
        if self.width % self.heads:
            raise InputError(f"width={self.width} must be a multiple of heads={self.heads}")
        return self


class CrossAttention(nn.Module):
    """Queries [B, N, W] that read a memory of another width, [B, M, C] -> [B, N, W]."""

    def __init__(self, width: int, memory: int, heads: int) -> None:
        """
        Args:
            memory: C.
        """
        super().__init__()
        self.heads = heads
        self.q, self.kv = nn.Linear(width, width), nn.Linear(memory, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor, present: Tensor | None = None) -> Tensor:
        """
        Args:
            present: [B, M] bool, positions that can be read; None = all.
        """
        q, k, v = (
            rearrange(part, "b l (h d) -> b h l d", h=self.heads)
            for part in (self.q(x), *self.kv(memory).chunk(2, dim=-1))
        )
        mask = None if present is None else present[:, None, None]
        return self.out(rearrange(attend(q, k, v, mask, False), "b h l d -> b l (h d)"))


class BertQueryBlock(nn.Module):
    """Self-attention, reading if it does, feed-forward; each sum is normalized."""

    def __init__(self, config: BertQueriesConfig, memory: int | None) -> None:
        """
        Args:
            memory: C; None = this block reads nothing.
        """
        super().__init__()
        width, eps = config.width, config.norm_eps
        self.attention = Attention(width, config.heads)
        self.norm_attention = nn.LayerNorm(width, eps=eps)
        self.cross = None
        if memory is not None:
            self.cross = CrossAttention(width, memory, config.heads)
            self.norm_cross = nn.LayerNorm(width, eps=eps)
        self.mlp = make_mlp("gelu", width, max(round(width * config.mlp_ratio), 1))
        self.norm_mlp = nn.LayerNorm(width, eps=eps)
        self.dropout = nn.ModuleList(Dropout(config.dropout) for _ in range(3))
        self.causal = config.causal

    def forward(self, x: Tensor, memory: Tensor, present: Tensor | None = None) -> Tensor:
        first, second, third = self.dropout
        x = self.norm_attention(x + first(self.attention(x, causal=self.causal)))
        if self.cross is not None:
            x = self.norm_cross(x + second(self.cross(x, memory, present)))
        return self.norm_mlp(x + third(self.mlp(x)))


class BertQueries(nn.Module):
    """N learned queries, read out of a memory: [B, M, C] -> [B, N, W]."""

    def __init__(self, config: BertQueriesConfig, count: int, memory: int) -> None:
        """
        Args:
            count: N. memory: C.
        """
        super().__init__()
        self.queries = nn.Parameter(torch.randn(count, config.width) * 0.02)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            BertQueryBlock(config, None if number % config.cross_every else memory)
            for number in range(config.depth)
        )
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, memory: Tensor, present: Tensor | None = None) -> Tensor:
        """
        Args:
            present: [B, M] bool, positions that can be read; None = all.
        """
        x = self.queries.to(memory.dtype).expand(len(memory), -1, -1)
        x = self.dropout(self.norm(x))
        for block in self.blocks:
            x = block(x, memory, present)
        return x
