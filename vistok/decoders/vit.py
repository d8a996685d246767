"""ViT decoder with mask tokens (TiTok, arXiv 2406.07550).

A grid of copies of one mask token and the latents go through one transformer; the grid comes out
as patches. A latent that is not present is overwritten by a learned vector *after* its position
was added (`absence: mask_token`, FlexTok) or not attended at all (`absence: cut`, One-D-Piece),
which equals a shorter sequence without changing any shape.
Letters: B batch, g patches, N latents, W width, D width of the values.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from vistok.config import Config
from vistok.dice import Draws
from vistok.layers.masks import visible
from vistok.layers.patchify import Unpatchify, patch_grid
from vistok.layers.positions import PositionKind, PositionTable
from vistok.layers.transformer import Transformer, TransformerConfig, init_weights
from vistok.records import Condition, Painted
from vistok.registry import register


class ViTDecoderConfig(Config):
    kind: Literal["vit"] = "vit"
    patch_size: int = Field(default=16, ge=1)
    transformer: TransformerConfig = TransformerConfig()
    positions: PositionKind = "sincos"
    position_base: float = Field(default=10000.0, gt=1)
    """Of the sin-cos frequencies."""
    slot_projection: bool = False
    """Each latent slot has its own input projection."""
    absence: Literal["mask_token", "cut", "none"] = "none"
    """What a missing latent is; none: only whole sequences can be decoded."""
    smooth: int = Field(default=0, ge=0)
    """Width of a residual pair of 3x3 convolutions behind the patches; 0 = none."""


@register("decoder", ViTDecoderConfig)
class ViTDecoder(nn.Module):
    def __init__(
        self, config: ViTDecoderConfig, image_size: tuple[int, int], latents: int, dim: int
    ) -> None:
        """
        Args:
            image_size: (H, W), multiples of the patch size.
            latents: N. dim: D, the width of the quantizer's values.
        """
        super().__init__()
        self.config = config
        width = config.transformer.width
        grid = patch_grid(image_size, config.patch_size)
        self.cut = "none" if config.absence == "none" else "token"
        if config.slot_projection:
            self.slots = nn.Parameter(torch.randn(latents, dim, width) * dim**-0.5)
        else:
            self.embed = nn.Linear(dim, width)
        self.mask_token = nn.Parameter(torch.randn(width) * width**-0.5)
        self.positions = PositionTable(config.positions, grid, width, config.position_base)
        self.latent_positions = nn.Parameter(torch.randn(latents, width))
        if config.absence == "mask_token":
            self.absent = nn.Parameter(torch.randn(width) * width**-0.5)
        self.transformer = Transformer(config.transformer)
        self.head = Unpatchify(config.patch_size, width, grid, smooth=config.smooth)
        init_weights(self, config.transformer)
        with torch.no_grad():
            self.head.proj.weight.mul_(0.1)  # start near grey: contrast must be learned
        if config.smooth:
            nn.init.zeros_(self.head.smooth[-1].weight)

    def forward(
        self,
        values: Tensor,
        present: Tensor | None = None,
        condition: Condition | None = None,
        draws: Draws | None = None,
    ) -> Painted:
        """values [B, N, D], present [B, N] bool (None = all) -> pixels [B, 3, H, W], unclamped."""
        if self.config.slot_projection:
            latents = torch.einsum("bnd,ndw->bnw", values.to(self.slots.dtype), self.slots)
        else:
            latents = self.embed(values.to(self.embed.weight.dtype))
        latents = latents + self.latent_positions.to(latents.dtype)
        mask = None
        if present is None and self.config.absence == "mask_token":
            # Nothing is absent, but a parameter that is in no graph stops DDP.
            present = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
        if present is not None:
            if self.config.absence == "none":
                raise ValueError(
                    "this decoder cannot leave latents out (absence: none); "
                    "set decoder.absence to mask_token or cut and train with a length regularizer"
                )
            if self.config.absence == "mask_token":
                latents = torch.where(present[..., None], latents, self.absent.to(latents.dtype))
        cells = self.mask_token.to(latents.dtype).expand(len(values), self.cells, -1)
        cells = self.positions(cells)
        if present is not None and self.config.absence == "cut":
            mask = visible(present, self.cells)
        x = torch.cat([cells, latents], dim=1)
        grid = self.transformer(x, mask=mask, only=slice(self.cells))
        pixels = (self.head(grid).float() + 1) / 2
        return Painted(pixels, pixels, {"grid": grid})

    @property
    def cells(self) -> int:
        """g: patches of the image."""
        return self.head.grid[0] * self.head.grid[1]

    @property
    def last_layer(self) -> nn.Parameter:
        return self.head.last_layer
