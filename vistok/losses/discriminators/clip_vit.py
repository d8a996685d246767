"""ViT discriminator of whole clips: one logit for each (LARP, arXiv 2410.21264).

A class token in front of the patches of space and time, with LARP's fixed table of positions, goes
through a transformer; a norm and a linear layer make its logit. No norm stands behind the blocks.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.layers.positions import sincos_sum
from vistok.layers.transformer import Transformer, TransformerConfig, init_weights

NORM_EPS = 1e-6  # of the class token's norm


class ClipViTConfig(Config):
    kind: Literal["clip_vit"] = "clip_vit"
    size: int = Field(default=8, ge=1, le=2**12)
    """Side of a patch in pixels."""
    frames: int = Field(default=4, ge=1, le=2**12)
    """Frames of a patch."""
    width: int = Field(default=512, ge=4, le=2**14, multiple_of=4)
    depth: int = Field(default=12, ge=1, le=512)
    heads: int = Field(default=8, ge=1, le=512)
    norm_eps: float = Field(default=1e-5, gt=0)
    """Epsilon of the blocks' norms."""
    spectral_norm: bool = False
    """Every linear layer and convolution is divided by its largest singular value."""

    @model_validator(mode="after")
    def _divides(self) -> ClipViTConfig:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise InputError(
                f"width={self.width} must be a multiple of heads={self.heads} with an even quotient"
            )
        return self

    @classmethod
    def tiny(cls) -> ClipViTConfig:
        return cls(frames=1, width=16, depth=1, heads=2)


@register("discriminator", ClipViTConfig)
class ClipViT(nn.Module):
    """[B, 3, T, H, W] in 0..1 -> logits [B, 1]. Images are clips of one frame."""

    media = "clip"

    def __init__(self, config: ClipViTConfig) -> None:
        super().__init__()
        self.config = config
        window = (config.frames, config.size, config.size)
        self.patches = nn.Conv3d(3, config.width, window, stride=window)
        self.class_token = nn.Parameter(torch.empty(1, 1, config.width))
        nn.init.xavier_uniform_(self.class_token)
        inner = TransformerConfig(
            width=config.width,
            depth=config.depth,
            heads=config.heads,
            norm_eps=config.norm_eps,
            qkv_bias=False,
            norm_out=False,
            init="xavier_fused",
            branch_scale="none",
        )
        self.transformer = Transformer(inner)
        self.norm = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.head = nn.Linear(config.width, 1)
        init_weights(self, inner)
        if config.spectral_norm:
            for layer in [*self.modules()]:
                if isinstance(layer, nn.Linear | nn.Conv3d):
                    parametrizations.spectral_norm(layer)
        self._tables: dict[tuple, Tensor] = {}

    def forward(self, pixels: Tensor) -> Tensor:
        clips = pixels if pixels.ndim == 5 else pixels[:, :, None]
        window = self.patches.kernel_size
        if any(side % part for side, part in zip(clips.shape[2:], window, strict=True)):
            raise InputError(
                f"discriminator clip_vit: clips of {tuple(clips.shape[2:])} are no multiples of "
                f"its patches {window}; change discriminator.frames or discriminator.size"
            )
        x = self.patches(clips)
        grid = tuple(x.shape[2:])
        x = x.flatten(2).transpose(1, 2) + self._positions(grid, x)
        x = torch.cat([self.class_token.to(x.dtype).expand(len(x), -1, -1), x], dim=1)
        x = self.transformer.tapped(x, (), only=slice(0, 1))[0]
        return self.head(self.norm(x[:, 0]))

    def _positions(self, grid: tuple[int, ...], like: Tensor) -> Tensor:
        """The table [L, W] of a grid, kept for the next clips."""
        key = (grid, like.device, like.dtype)
        if key in self._tables:
            return self._tables[key]
        table = sincos_sum(grid, self.config.width).to(like)
        if type(table) is Tensor:  # not of a pass that has shapes and no numbers
            self._tables[key] = table
        return table
