"""Encoder of images of any size into a list of latents (Instella-T2I, arXiv 2506.21022).

Learned latent tokens and the patches of an image go through one transformer whose grid of patches
is halved on the way; the latents come out, are normalized and projected. Nothing depends on the
size of the image but its positions, which `vistok.layers.pyramid` says.
Letters: B batch, N latents, h w patches, W width, D width of a latent.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from vistok.config.registry import register
from vistok.core.records import Condition, Latents
from vistok.core.shapes import Shape
from vistok.encoders.base import Encoder
from vistok.layers.patchify import PatchEmbed, PatchesConfig
from vistok.layers.pyramid import Pyramid, PyramidConfig
from vistok.layers.transformer import init_weights


class PyramidEncoderConfig(PyramidConfig):
    kind: Literal["pyramid"] = "pyramid"
    latents: int = Field(default=128, ge=1, le=2**16)
    """N latent tokens."""

    @classmethod
    def tiny(cls) -> PyramidEncoderConfig:
        return cls(latents=4, **cls.tiny_parts())


@register("encoder", PyramidEncoderConfig)
class PyramidEncoder(Encoder):
    def __init__(self, config: PyramidEncoderConfig, shape: Shape, dim: int) -> None:
        super().__init__()
        self.config = config
        config.finest(shape)
        self.grids = ((config.latents,),)
        width = config.transformer.width
        patches = PatchesConfig(size=config.patch_size, positions="none")
        self.patch_embed = PatchEmbed(patches, shape, width)
        self.latent_tokens = nn.Parameter(torch.randn(config.latents, width) * 0.02)
        self.transformer = Pyramid(config, "halve")
        self.proj = nn.Linear(width, dim)
        init_weights(self, config.transformer)

    def forward(self, x: Tensor, condition: Condition | None = None) -> Latents:
        """x [B, C, H, W] of any sides that `stride` divides -> latents [B, N, D]."""
        grid = self.config.finest(Shape(x.shape[1], tuple(x.shape[2:])))
        rows = self.patch_embed(x)
        tokens = self.latent_tokens.to(rows.dtype).expand(len(x), -1, -1)
        taps = self.config.taps
        latents, seen = self.transformer(tokens, rows, grid, taps.values())
        features = {"latents": latents, **{name: seen[i] for name, i in taps.items()}}
        return Latents(self.proj(latents).float(), self.grids, features)
