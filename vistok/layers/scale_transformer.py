"""The transformer of next-scale generators: VAR's block (arXiv 2404.02905), and STAR's, which reads
a text instead of being modulated (arXiv 2406.10797).

Differences from `vistok.layers.transformer`: queries and keys are of length 1 with a learned factor
per head, or their scores are divided by 4 sqrt(d); queries and values have a bias, keys have none;
norms are without gain; all blocks may share one modulation, to which each adds its own offsets.
Letters: B batch, L positions, D width, h heads, d width of a head, M positions of a text, C width
of its features.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import Config
from vistok.core.errors import InputError
from vistok.layers.attention import Attention, KVCache, attend
from vistok.layers.dropout import Dropout, DropPath
from vistok.layers.mlp import make_mlp
from vistok.layers.modulation import Modulation, modulate
from vistok.layers.norms import make_norm
from vistok.layers.text_transformer import LayerText

LARGEST_FACTOR = 100.0  # of queries; factors start from 4
UNIT_EPS = 1e-12  # least length that a vector is divided by


class ScaleTransformerConfig(Config):
    width: int = Field(default=1024, ge=2, le=2**14)
    """D, channels of a position; a multiple of heads."""
    depth: int = Field(default=16, ge=1, le=512)
    heads: int = Field(default=16, ge=1, le=512)
    mlp_ratio: float = Field(default=4.0, gt=0, le=64)
    """Hidden width of the feed-forward layer (tanh-GELU), as a multiple of width."""
    norm_eps: float = Field(default=1e-6, gt=0)
    unit_attention: bool = True
    """Queries and keys of length 1, with a learned factor of each head of at most 100; false:
    scores over 4 sqrt(d)."""
    modulation: Literal["block", "shared", "none"] = "block"
    """Scales, shifts and gates from the condition: by a layer of each block, by one layer of all
    with offsets of each block (VAR-d36), or none (STAR)."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of activations of the residual branches that training drops, keyed by sample."""
    attention_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of attention weights that training drops, keyed by sample."""
    mlp_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of hidden activations of the feed-forward layers that training drops, keyed by
    sample."""
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    """Share of samples for which training skips a residual branch of the last block; it grows
    linearly over the blocks, from 0 at the first. VAR: depth / 240."""
    gate_gain: float = Field(default=1e-3, ge=0, le=1)
    """Scale of the layers to gates at the start (VAR: 1e-3 down to 5e-6 for the largest)."""

    @classmethod
    def tiny(cls) -> ScaleTransformerConfig:
        return cls(width=16, depth=1, heads=2)

    @model_validator(mode="after")
    def _divides(self) -> ScaleTransformerConfig:
        if self.width % self.heads:
            raise InputError(f"width={self.width} must be a multiple of heads={self.heads}")
        return self

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    @property
    def score_scale(self) -> float:
        """Factor of the scores."""
        return 1.0 if self.unit_attention else 0.25 / math.sqrt(self.head_dim)


class UnitVectors(nn.Module):
    """[B, h, L, d] -> vectors of length 1, in fp32.

    Args:
        heads: of a learned factor; None = no factor.
    """

    def __init__(self, heads: int | None = None) -> None:
        super().__init__()
        self.log_factor = None
        if heads is not None:
            self.log_factor = nn.Parameter(torch.full((heads, 1, 1), math.log(4.0)))

    def forward(self, x: Tensor) -> Tensor:
        x = F.normalize(x.float(), dim=-1, eps=UNIT_EPS)
        if self.log_factor is None:
            return x
        return x * self.log_factor.clamp(max=math.log(LARGEST_FACTOR)).exp()


class QueryValueLinear(nn.Linear):
    """Queries, keys and values [B, L, 3 D] of [B, L, D]; keys without a bias."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        return F.linear(x, self.weight, bias)


class ScaleAttention(Attention):
    """Self-attention with the queries, keys and biases that the header names."""

    def __init__(self, config: ScaleTransformerConfig) -> None:
        width, dropout = config.width, config.attention_dropout
        super().__init__(width, config.heads, dropout=dropout, scale=config.score_scale)
        self.qkv = QueryValueLinear(width)
        if config.unit_attention:
            self.norm_q, self.norm_k = UnitVectors(config.heads), UnitVectors()


class TextAttention(nn.Module):
    """Positions ask, and the positions of a text answer; [B, L, D] -> [B, L, D]."""

    def __init__(self, config: ScaleTransformerConfig, text: int) -> None:
        """
        Args:
            text: C.
        """
        super().__init__()
        width, self.heads, self.scale = config.width, config.heads, config.score_scale
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(text, width, bias=False)
        self.value = nn.Linear(text, width)
        self.out = nn.Linear(width, width)
        self.dropout = Dropout(config.attention_dropout)
        unit = config.unit_attention
        self.norm_q = UnitVectors(config.heads) if unit else nn.Identity()
        self.norm_k = UnitVectors() if unit else nn.Identity()

    def forward(self, x: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """
        Args:
            text: [B, M, C]. mask: [B, M] bool, which positions are text; a sample without any reads
                zeros.
        """
        text = text.to(self.key.weight.dtype)
        q, k, v = (
            rearrange(part, "b l (h d) -> b h l d", h=self.heads)
            for part in (self.query(x), self.key(text), self.value(text))
        )
        q, k = self.norm_q(q).to(v.dtype), self.norm_k(k).to(v.dtype)
        some = mask.any(-1)  # a softmax over nothing would not be finite
        seen = (mask | ~some[:, None])[:, None, None]
        dropout = self.dropout if self.training and self.dropout.p else None
        y = attend(q, k, v, seen, False, dropout, self.scale) * some[:, None, None, None]
        return self.out(rearrange(y, "b h l d -> b l (h d)"))


class ScaleBlock(nn.Module):
    """Self-attention, perhaps attention to a text, and a feed-forward layer, each added to x."""

    def __init__(self, config: ScaleTransformerConfig, number: int, text: int | None) -> None:
        """
        Args:
            number: of the block, from 0; later ones are skipped more often.
            text: C; None = no text is read.
        """
        super().__init__()
        width = config.width
        self.norm = make_norm("layernorm", width, config.norm_eps, affine=False)  # of all branches
        self.attention = ScaleAttention(config)
        hidden = round(width * config.mlp_ratio)
        self.mlp = make_mlp("gelu_tanh", width, hidden, dropout=config.mlp_dropout)
        self.text = None if text is None else TextAttention(config, text)
        self.modulation = self.offsets = None
        if config.modulation == "block":
            self.modulation = Modulation(width, width, 6)
        elif config.modulation == "shared":
            self.offsets = nn.Parameter(torch.randn(6, width) / math.sqrt(width))
        self.dropout_attention = Dropout(config.dropout)
        self.dropout_mlp = Dropout(config.dropout)
        skipped = config.drop_path * number / max(config.depth - 1, 1)
        self.skip_attention, self.skip_mlp = DropPath(skipped), DropPath(skipped)

    def forward(
        self,
        x: Tensor,
        vector: Tensor,
        shared: tuple[Tensor, ...] | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
        text: Tensor | None = None,
        text_mask: Tensor | None = None,
    ) -> Tensor:
        """x [B, L, D] -> [B, L, D].

        Args:
            vector: [B, D], the condition. shared: six [B, 1, D] of the modulation of all blocks.
            text: [B, M, C], with its mask [B, M].
        """
        shift = scale = shift_mlp = scale_mlp = 0.0
        gate = gate_mlp = 1.0
        if self.modulation is not None:
            shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.modulation(vector)
        elif self.offsets is not None:
            parts = (part + own for part, own in zip(shared, self.offsets, strict=True))
            shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = parts
        y = self.attention(modulate(self.norm(x), shift, scale), rotary, mask, cache=cache)
        x = x + self.skip_attention(gate * self.dropout_attention(y))
        if self.text is not None:
            x = x + self.text(self.norm(x), text, text_mask)
        y = self.dropout_mlp(self.mlp(modulate(self.norm(x), shift_mlp, scale_mlp)))
        return x + self.skip_mlp(gate_mlp * y)


class ScaleTransformer(nn.Module):
    """A stack of blocks and a final norm, which the condition modulates too; [B, L, D] -> same."""

    def __init__(self, config: ScaleTransformerConfig, text: int | None = None) -> None:
        """
        Args:
            text: C, width of the features of a text; None = none is read.
        """
        super().__init__()
        self.config, width = config, config.width
        self.blocks = nn.ModuleList(ScaleBlock(config, i, text) for i in range(config.depth))
        self.shared = Modulation(width, width, 6) if config.modulation == "shared" else None
        self.norm = make_norm("layernorm", width, config.norm_eps, affine=False)
        self.modulation_head = None
        if config.modulation != "none":
            self.modulation_head = Modulation(width, width, 2)

    def forward(
        self,
        x: Tensor,
        vector: Tensor,
        rotary: tuple[Tensor, Tensor] | None = None,
        mask: Tensor | None = None,
        caches: list[KVCache] | None = None,
        text: LayerText | None = None,
    ) -> Tensor:
        """x [B, L, D], vector [B, D] (the condition) -> [B, L, D].

        Args:
            rotary: cos and sin [L, d / 2], or [B, 1, L, d / 2]. mask: as of `Attention`.
            text: features of one layer for all blocks, or of a layer for each.
        """
        shared = None if self.shared is None else self.shared(vector)
        for i, block in enumerate(self.blocks):
            cache = None if caches is None else caches[i]
            read = {}
            if text is not None:
                layer = i if text.features.shape[1] > 1 else 0
                read = {"text": text.features[:, layer], "text_mask": text.mask}
            x = block(x, vector, shared, rotary, mask, cache, **read)
        x = self.norm(x)
        if self.modulation_head is None:
            return x
        shift, scale = self.modulation_head(vector)
        return modulate(x, shift, scale)

    def new_caches(self, batch: int, capacity: int, like: Tensor) -> list[KVCache]:
        """Empty KV caches, one per block."""
        heads, head_dim = self.config.heads, self.config.head_dim
        return [KVCache(batch, heads, capacity, head_dim, like) for _ in self.blocks]

    @torch.no_grad()
    def initialize(self) -> None:
        """VAR's start: weights of std 1/sqrt(3 D), the last layer of a branch over sqrt(2 depth),
        half of that in layers of scales and shifts, and next to nothing in those of gates."""
        config, std = self.config, (3 * self.config.width) ** -0.5
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=std)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        for layer in self.modules():
            if isinstance(layer, Modulation):
                layer.damp(config.gate_gain)
        for block in self.blocks:
            for layer in (block.attention.out, block.mlp.out):
                layer.weight.div_(math.sqrt(2 * config.depth))
            if block.offsets is not None:
                block.offsets.mul_(torch.full((6,), 0.5)[:, None])
                block.offsets[[2, 5]] = block.offsets[[2, 5]] * 2 * config.gate_gain
