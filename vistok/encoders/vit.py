"""ViT encoder with learned latent tokens (TiTok, arXiv 2406.07550; FlexTok's registers).

The image's patches and N learned latent tokens go through one transformer; the latents come out.
Letters: B batch, g patches, N latents, W width, D width of the quantizer's input.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from vistok.config import Config
from vistok.layers.masks import causal_last
from vistok.layers.norms import NormKind, make_norm
from vistok.layers.patchify import PatchEmbed, patch_grid
from vistok.layers.positions import PositionKind, PositionTable
from vistok.layers.transformer import Transformer, TransformerConfig, init_weights
from vistok.records import Condition, Latents
from vistok.registry import register


class ViTEncoderConfig(Config):
    kind: Literal["vit"] = "vit"
    patch_size: int = Field(default=16, ge=1)
    overlap: int = Field(default=0, ge=0)
    """Pixels by which a patch reaches into its neighbours, on each side."""
    num_latents: int = Field(default=128, ge=1)
    """N latent tokens."""
    transformer: TransformerConfig = TransformerConfig()
    positions: PositionKind = "sincos"
    position_base: float = Field(default=10000.0, gt=1)
    """Of the sin-cos frequencies; small grids are told apart better with a small base."""
    pixel_std: float = Field(default=0.5, gt=0)
    """Pixels enter as (x - 0.5) / pixel_std: 0.5 gives -1..1, 0.25 about unit variance."""
    attention: Literal["full", "causal_latents"] = "full"
    """causal_latents: patches see patches, latent i sees patches and latents 0..i (FlexTok)."""
    latent_norm: NormKind = "none"
    """Parameter-free norm of each latent before the quantizer: unit variance over channels."""
    slot_projection: bool = False
    """Each latent slot has its own output projection, so that slots do not become duplicates."""
    latent_gain: float = Field(default=1.0, gt=0)
    """Scale of the output projection at the start; below 1 keeps FSQ's tanh out of saturation."""


@register("encoder", ViTEncoderConfig)
class ViTEncoder(nn.Module):
    def __init__(self, config: ViTEncoderConfig, image_size: tuple[int, int], dim: int) -> None:
        """
        Args:
            image_size: (H, W), multiples of the patch size.
            dim: D, the width of a latent.
        """
        super().__init__()
        self.config = config
        width, latents = config.transformer.width, config.num_latents
        grid = patch_grid(image_size, config.patch_size)
        self.grid = (latents,)
        self.patch_embed = PatchEmbed(config.patch_size, width, overlap=config.overlap)
        self.positions = PositionTable(config.positions, grid, width, config.position_base)
        self.latent_tokens = nn.Parameter(torch.randn(latents, width))
        self.transformer = Transformer(config.transformer)
        if config.slot_projection:
            self.slots = nn.Parameter(torch.randn(latents, width, dim) * width**-0.5)
        else:
            self.proj = nn.Linear(width, dim)
        self.latent_norm = make_norm(config.latent_norm, dim, affine=False)
        mask = causal_last(grid[0] * grid[1], latents)
        self.register_buffer(
            "mask", mask if config.attention == "causal_latents" else None, persistent=False
        )
        init_weights(self, config.transformer)
        with torch.no_grad():
            (self.slots if config.slot_projection else self.proj.weight).mul_(config.latent_gain)

    def forward(self, x: Tensor, condition: Condition | None = None) -> Latents:
        """x [B, 3, H, W] in 0..1 -> latents [B, N, D]."""
        patches = self.positions(self.patch_embed((x - 0.5) / self.config.pixel_std))  # [B, g, W]
        latents = self.latent_tokens.to(patches.dtype).expand(len(x), -1, -1)
        x = torch.cat([patches, latents], dim=1)
        latents = self.transformer(x, mask=self.mask, only=slice(patches.shape[1], None))
        if self.config.slot_projection:
            values = torch.einsum("bnw,nwd->bnd", latents, self.slots.to(latents.dtype))
        else:
            values = self.proj(latents)
        return Latents(self.latent_norm(values.float()), self.grid, {"latents": latents})
