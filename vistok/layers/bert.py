"""BERT's transformer (arXiv 1810.04805), as HuggingFace builds it, over embeddings.

Post-norm blocks: every residual sum is normalized, and so is the input, after learned positions and
the embedding of the only kind of token that there is (row 0 of BERT's table of segments).
Letters: B batch, S slots in front, L positions, n slots, W width.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.layers.attention import Attention
from vistok.layers.dropout import Dropout
from vistok.layers.masks import joined
from vistok.layers.mlp import MlpKind, make_mlp


class BertConfig(Config):
    kind: Literal["bert"] = "bert"
    width: int = Field(default=768, ge=1, le=2**14)
    """W, channels of a position; a multiple of heads."""
    depth: int = Field(default=24, ge=1, le=512)
    heads: int = Field(default=16, ge=1, le=512)
    mlp: MlpKind = "gelu"
    mlp_ratio: float = Field(default=4.0, gt=0, le=64)
    """Hidden width of the feed-forward layer, as a multiple of width (rounded)."""
    norm_eps: float = Field(default=1e-12, gt=0, le=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of activations that training drops: of the normalized input and of the branches."""
    attention_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of attention weights that training drops."""
    init: Literal["fan_in", "normal"] = "fan_in"
    """Weights of linear layers: fan_in, std 1/sqrt(fan-in); normal, std 0.02 (BERT)."""

    @classmethod
    def tiny(cls) -> BertConfig:
        return cls(width=16, depth=1, heads=2)

    @model_validator(mode="after")
    def _divides(self) -> BertConfig:
        if self.width % self.heads:
            raise InputError(f"width={self.width} must be a multiple of heads={self.heads}")
        return self


class BertBlock(nn.Module):
    """x = norm(x + attention(x)), then norm(x + mlp(x)); [B, n, W] -> [B, n, W]."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        width = config.width
        self.attention = Attention(width, config.heads, dropout=config.attention_dropout)
        self.dropout_attention = Dropout(config.dropout)
        self.norm_attention = nn.LayerNorm(width, eps=config.norm_eps)
        self.mlp = make_mlp(config.mlp, width, max(round(width * config.mlp_ratio), 1))
        self.dropout_mlp = Dropout(config.dropout)
        self.norm_mlp = nn.LayerNorm(width, eps=config.norm_eps)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.norm_attention(x + self.dropout_attention(self.attention(x, mask=mask)))
        return self.norm_mlp(x + self.dropout_mlp(self.mlp(x)))


@register("trunk", BertConfig)
class Bert(nn.Module):
    """Bidirectional transformer over slots in front and L positions.

    Args:
        front: S. length: L.
    """

    reads = "front"

    def __init__(self, config: BertConfig, front: int, length: int) -> None:
        super().__init__()
        width = config.width
        self.positions = nn.Parameter(torch.randn(front + length, width) * 0.02)
        self.token_type = nn.Parameter(torch.randn(1, width) * 0.02)
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(BertBlock(config) for _ in range(config.depth))
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                std = layer.weight.shape[1] ** -0.5 if config.init == "fan_in" else 0.02
                nn.init.normal_(layer.weight, std=std)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, front: Tensor, seen: Tensor | None = None) -> Tensor:
        """Hidden states [B, L, W] of embeddings x [B, L, W].

        Args:
            front: [B, S, W]. seen: [B, L] bool, positions that exist; None = all.
        """
        count = front.shape[1]
        mask = None if seen is None else joined(count, seen, batch=len(x), device=x.device)
        x = torch.cat([front.to(x.dtype), x], dim=1)
        x = self.dropout(self.norm(x + self.token_type + self.positions))
        for block in self.blocks:
            x = block(x, mask)
        return x[:, count:]
