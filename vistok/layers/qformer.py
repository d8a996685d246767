"""Q-Former: queries that read a memory by cross-attention (DETR, arXiv 2005.12872; GigaTok).

Positions are added to queries and keys anew in every layer, and never to values. The memory is not
normalized in the layers.
Letters: B batch, L queries, M positions of the memory, W width, h heads, d width of a head.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import Config
from vistok.core.errors import InputError
from vistok.layers.attention import attend
from vistok.layers.dropout import Dropout
from vistok.layers.norms import make_norm


class QFormerConfig(Config):
    width: int = Field(default=512, ge=2, le=2**14)
    """W, channels of a query; a multiple of heads."""
    depth: int = Field(default=6, ge=1, le=512)
    heads: int = Field(default=8, ge=1, le=512)
    mlp_ratio: float = Field(default=4.0, gt=0, le=64)
    """Hidden width of the feed-forward layer, as a multiple of width."""
    norm_eps: float = Field(default=1e-5, gt=0)
    qk_norm: bool = False
    """LayerNorm of queries and keys, per head."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of activations of the residual branches, and inside the feed-forward layer, that
    training drops, keyed by sample."""

    @classmethod
    def tiny(cls) -> QFormerConfig:
        return cls(width=16, depth=1, heads=2)

    @model_validator(mode="after")
    def _divides(self) -> QFormerConfig:
        if self.width % self.heads:
            raise InputError(f"width={self.width} must be a multiple of heads={self.heads}")
        return self


class MixedAttention(nn.Module):
    """softmax(q k^T / sqrt(d)) v of three inputs with one fused projection, as in
    nn.MultiheadAttention: [B, L, W], [B, M, W], [B, M, W] -> [B, L, W]."""

    def __init__(self, config: QFormerConfig) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        kind = "layernorm" if config.qk_norm else "none"
        self.norm_q = make_norm(kind, width // self.heads, config.norm_eps)
        self.norm_k = make_norm(kind, width // self.heads, config.norm_eps)
        nn.init.xavier_uniform_(self.qkv.weight)
        for layer in (self.qkv, self.out):
            nn.init.zeros_(layer.bias)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """
        Args:
            mask: bool, True = may look, broadcast to [B, h, L, M].
        """
        weights, biases = self.qkv.weight.chunk(3), self.qkv.bias.chunk(3)
        q, k, v = (
            rearrange(F.linear(x, weight, bias), "b l (h d) -> b h l d", h=self.heads)
            for x, weight, bias in zip((q, k, v), weights, biases, strict=True)
        )
        q, k = self.norm_q(q).to(v.dtype), self.norm_k(k).to(v.dtype)
        return self.out(rearrange(attend(q, k, v, mask, False), "b h l d -> b l (h d)"))


class QFormerBlock(nn.Module):
    """Self-attention of the queries, cross-attention to the memory and a feed-forward layer, each
    behind a norm of its own and added to the queries."""

    def __init__(self, config: QFormerConfig) -> None:
        super().__init__()
        width, eps = config.width, config.norm_eps
        hidden = int(width * config.mlp_ratio)
        self.norm_self, self.self_attention = nn.LayerNorm(width, eps), MixedAttention(config)
        self.norm_cross, self.cross_attention = nn.LayerNorm(width, eps), MixedAttention(config)
        self.norm_mlp = nn.LayerNorm(width, eps)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        names = ("self", "cross", "mlp", "hidden")
        self.dropout = nn.ModuleDict({name: Dropout(config.dropout) for name in names})

    def forward(
        self, x: Tensor, places: Tensor, keys: Tensor, memory: Tensor, mask: Tensor | None
    ) -> Tensor:
        """x [B, L, W] -> [B, L, W].

        Args:
            places: positions of the queries, [L, W]. keys: memory plus its positions, [B, M, W].
            mask: bool, True = may look, broadcast to [B, h, L, M].
        """
        y = self.norm_self(x)
        asked = y + places
        x = x + self.dropout["self"](self.self_attention(asked, asked, y))
        asked = self.norm_cross(x) + places
        x = x + self.dropout["cross"](self.cross_attention(asked, keys, memory, mask))
        y = self.dropout["hidden"](F.gelu(self.up(self.norm_mlp(x))))
        return x + self.dropout["mlp"](self.down(y))


class QFormer(nn.Module):
    """A stack of blocks and a final norm."""

    def __init__(self, config: QFormerConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(QFormerBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, config.norm_eps)

    def forward(
        self,
        x: Tensor,
        places: Tensor,
        memory: Tensor,
        memory_places: Tensor,
        present: Tensor | None = None,
        taps: Collection[int] = (),
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Queries x [B, L, W] -> [B, L, W], and their states before the norm after some blocks.

        Args:
            places, memory_places: their positions, [L, W] and [M, W]. memory: [B, M, W].
            present: [B, M] bool, positions of the memory that can be read; None = all.
            taps: numbers of blocks, the first is 1.
        """
        keys, places = memory + memory_places.to(memory.dtype), places.to(x.dtype)
        mask = None if present is None else present[:, None, None]
        seen = {}
        for number, block in enumerate(self.blocks, 1):
            x = block(x, places, keys, memory, mask)
            if number in taps:
                seen[number] = x
        return self.norm(x), seen


InitKind = Literal["torch", "trunc_normal"]


def init_weights(module: nn.Module, kind: InitKind, but: Collection[nn.Module] = ()) -> None:
    """Initialize linear layers and convolutions of `module`, except those in `but`.

    torch: as its layers are made; trunc_normal: std 0.02 and no bias (GigaTok). Fused projections
    of attention keep their Xavier uniform start.
    """
    if kind == "torch":
        return
    kept = {*but, *(m.qkv for m in module.modules() if isinstance(m, MixedAttention))}
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and layer not in kept:
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def table(count: int, width: int) -> nn.Parameter:
    """A learned table [count, width], normal with standard deviation width**-0.5."""
    return nn.Parameter(torch.randn(count, width) * width**-0.5)
