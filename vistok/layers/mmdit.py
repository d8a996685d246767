"""A transformer of two streams, image tokens and text, that attend jointly (MM-DiT, Stable
Diffusion 3, arXiv 2403.03206; MaskGen, arXiv 2501.07730).

Each stream has its own projections, norms, feed-forward layers and modulation by a vector of the
sample; queries, keys and values of both are put behind each other for attention. Nothing reads the
text behind the last block: there it only gives keys and values, and its modulation has no gates.
Letters: B batch, L image positions, M text positions, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
from einops import rearrange
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.layers.attention import attend
from vistok.layers.masks import joined
from vistok.layers.mlp import MlpKind, make_mlp
from vistok.layers.modulation import Modulation, modulate
from vistok.layers.norms import make_norm


class MMDiTConfig(Config):
    """Sizes and options of an MM-DiT."""

    kind: Literal["mmdit"] = "mmdit"
    width: int = Field(default=512, ge=2, le=2**14)
    """D of both streams; a multiple of heads."""
    depth: int = Field(default=8, ge=1, le=512)
    heads: int = Field(default=8, ge=1, le=512)
    mlp: MlpKind = "gelu_tanh"
    mlp_ratio: float = Field(default=4.0, gt=0, le=64)
    """Hidden width of the feed-forward layers, as a multiple of width."""
    norm_eps: float = Field(default=1e-6, gt=0, lt=1)
    """Of all layer norms; none has a learned gain."""
    text_padding: Literal["attended", "masked"] = "attended"
    """Padding of short texts: attended like text (MaskGen), or hidden."""
    init: Literal["fan_in", "trunc_normal"] = "fan_in"
    """fan_in: std 1/sqrt(fan-in); trunc_normal: std 0.02 (MaskGen)."""
    modulation_init: Literal["zero", "normal"] = "zero"
    """Start of the modulations that have gates: zero (adaLN-Zero), or as all linear layers
    (MaskGen, whose sweep over linear layers comes after its blocks were made)."""

    @classmethod
    def tiny(cls) -> MMDiTConfig:
        return cls(width=16, depth=2, heads=2)

    @model_validator(mode="after")
    def _divides(self) -> MMDiTConfig:
        if self.width % self.heads:
            raise InputError(f"width={self.width} must be a multiple of heads={self.heads}")
        return self


class Stream(nn.Module):
    """Layers of one stream in a block.

    Args:
        gives_only: it gives keys and values, asks nothing and ends here.
    """

    def __init__(self, config: MMDiTConfig, gives_only: bool = False) -> None:
        super().__init__()
        width, self.heads, self.gives_only = config.width, config.heads, gives_only
        norm = lambda: make_norm("layernorm", width, config.norm_eps, affine=False)
        self.modulation = Modulation(width, width, 2 if gives_only else 6)
        self.norm_attention = norm()
        if gives_only:
            self.kv = nn.Linear(width, 2 * width)
            return
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_mlp = norm()
        self.mlp = make_mlp(config.mlp, width, round(width * config.mlp_ratio))

    def project(self, x: Tensor, shift: Tensor, scale: Tensor) -> tuple[Tensor | None, ...]:
        """[B, n, D] -> queries (None if there are none), keys and values [B, h, n, d]."""
        y = modulate(self.norm_attention(x), shift, scale)
        parts = self.kv(y).chunk(2, dim=-1) if self.gives_only else self.qkv(y).chunk(3, dim=-1)
        split = [rearrange(part, "b n (h d) -> b h n d", h=self.heads) for part in parts]
        return (None, *split) if self.gives_only else tuple(split)

    def finish(self, x: Tensor, attended: Tensor, groups: tuple[Tensor, ...]) -> Tensor:
        """The stream behind a block: x [B, n, D], attended [B, h, n, d] -> [B, n, D].

        Args:
            groups: gate of the attention, then shift, scale and gate of the feed-forward layers.
        """
        gate, shift, scale, gate_mlp = groups
        x = x + gate * self.out(rearrange(attended, "b h n d -> b n (h d)"))
        return x + gate_mlp * self.mlp(modulate(self.norm_mlp(x), shift, scale))


class JointBlock(nn.Module):
    """A block of both streams; the last one of a network gives no text (None)."""

    def __init__(self, config: MMDiTConfig, last: bool) -> None:
        super().__init__()
        self.image, self.text = Stream(config), Stream(config, gives_only=last)

    def forward(
        self, x: Tensor, text: Tensor, vector: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """x [B, L, D], text [B, M, D], vector [B, D], mask [B, 1, 1, L + M] -> both streams."""
        shift, scale, *image_groups = self.image.modulation(vector)
        q, k, v = self.image.project(x, shift, scale)
        shift, scale, *text_groups = self.text.modulation(vector)
        text_q, text_k, text_v = self.text.project(text, shift, scale)
        k, v = torch.cat([k, text_k], dim=2), torch.cat([v, text_v], dim=2)
        if text_q is None:
            return self.image.finish(x, attend(q, k, v, mask, causal=False), image_groups), None
        attended = attend(torch.cat([q, text_q], dim=2), k, v, mask, causal=False)
        own, of_text = attended.split([x.shape[1], text.shape[1]], dim=2)
        return self.image.finish(x, own, image_groups), self.text.finish(text, of_text, text_groups)


@register("trunk", MMDiTConfig)
class MMDiT(nn.Module):
    """Positions, a stack of joint blocks, then a modulated norm; [B, L, D] -> [B, L, D].

    Args:
        front: slots among the positions; this trunk has none. length: L.
    """

    reads = "streams"

    def __init__(self, config: MMDiTConfig, front: int, length: int) -> None:
        super().__init__()
        self.config = config
        self.positions = nn.Parameter(torch.randn(front + length, config.width) * 0.02)
        self.blocks = nn.ModuleList(
            JointBlock(config, last=i == config.depth - 1) for i in range(config.depth)
        )
        self.norm = make_norm("layernorm", config.width, config.norm_eps, affine=False)
        self.modulation = Modulation(config.width, config.width, 2)
        self._init_weights()

    def _init_weights(self) -> None:
        """Start all linear layers as the config says, modulations at zero unless it says else."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                std = module.in_features**-0.5 if self.config.init == "fan_in" else 0.02
                nn.init.trunc_normal_(module.weight, std=std, a=-3 * std, b=3 * std)
                nn.init.zeros_(module.bias)
        for module in self.modules():
            gated = isinstance(module, Modulation) and module.count == 6
            if isinstance(module, Modulation) and not (
                gated and self.config.modulation_init == "normal"
            ):
                module.reset()

    def forward(
        self,
        x: Tensor,
        text: Tensor,
        vector: Tensor,
        text_mask: Tensor | None = None,
        seen: Tensor | None = None,
    ) -> Tensor:
        """Hidden states [B, L, D] of embeddings x [B, L, D].

        Args:
            text: [B, M, D]. vector: of each sample [B, D].
            text_mask: [B, M] bool, which positions are text; looked at if padding is masked.
            seen: [B, L] bool, positions that exist; None = all.
        """
        mask = self._mask(x, text, text_mask, seen)
        x = x + self.positions
        for block in self.blocks:
            x, text = block(x, text, vector, mask)
        shift, scale = self.modulation(vector)
        return modulate(self.norm(x), shift, scale)

    def _mask(
        self, x: Tensor, text: Tensor, text_mask: Tensor | None, seen: Tensor | None
    ) -> Tensor | None:
        """[B, 1, 1, L + M] bool: keys that may be looked at; None = all."""
        if self.config.text_padding == "attended":
            text_mask = None
        parts = ((x, seen), (text, text_mask))
        parts = (like.shape[1] if one is None else one for like, one in parts)
        return joined(*parts, batch=len(x), device=x.device)
