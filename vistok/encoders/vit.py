"""ViT encoder with learned latent tokens (TiTok, arXiv 2406.07550; FlexTok's registers).

The image's patches and N learned latent tokens go through one transformer; the latents come out.
Letters: B batch, g patches, N latents, W width, D width of the quantizer's input.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.records import Condition, Latents
from vistok.layers.masks import causal_last, joined
from vistok.layers.norms import NormKind, make_norm
from vistok.layers.patchify import PatchEmbed, patch_grid
from vistok.layers.positions import PositionKind, PositionTable
from vistok.layers.text import TextInput, TextInputConfig
from vistok.layers.transformer import Transformer, TransformerConfig, init_weights


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
    pixel_mean: float = 0.5
    pixel_std: float = Field(default=0.5, gt=0)
    """Pixels enter as (x - pixel_mean) / pixel_std: 0.5 gives -1..1, 0.25 about unit variance."""
    class_token: bool = False
    """A learned token in front of the patches, which nothing reads (TiTok's CLIP heritage)."""
    latent_positions: bool = False
    """A learned table of their own is added to the latent tokens (TiTok)."""
    norm_in: bool = False
    """The transformer's norm also before the first block (TiTok's ln_pre)."""
    text: TextInputConfig | None = None
    """Text features behind the latents (TexTok); null = none are read."""
    attention: Literal["full", "causal_latents"] = "full"
    """causal_latents: patches see patches, latent i sees patches and latents 0..i (FlexTok)."""
    latent_norm: NormKind = "none"
    """Parameter-free norm of each latent before the quantizer: unit variance over channels."""
    slot_projection: bool = False
    """Each latent slot has its own output projection, so that slots do not become duplicates."""
    reinterpret: bool = False
    """The latents' memory [N, W] is read as [W, N] before the output projection, without being
    transposed: an accident of TiTok's first release that its two-stage weights (and One-D-Piece's)
    depend on. Each output then mixes channels of all latents."""
    token_std: Literal["unit", "width"] = "unit"
    """Of learned tokens and tables at the start: 1 (tables 0.02), or width**-0.5 (TiTok)."""
    latent_gain: float = Field(default=1.0, gt=0)
    """Scale of the output projection at the start; below 1 keeps FSQ's tanh out of saturation."""

    @model_validator(mode="after")
    def _agrees(self) -> ViTEncoderConfig:
        if self.text is not None and self.attention != "full":
            raise ValueError("text is read with attention=full only")
        if self.reinterpret and self.slot_projection:
            raise ValueError("reinterpret and slot_projection exclude each other: choose one")
        return self


@register("encoder", ViTEncoderConfig)
class ViTEncoder(nn.Module):
    wants_patches: bool = False
    """Whether the tap `patches` is given too; the last block then works for all positions, which
    costs a tenth of a small encoder."""

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
        token, table = token_stds(config.token_std, width)
        lead = int(config.class_token)
        self.patch_embed = PatchEmbed(config.patch_size, width, overlap=config.overlap)
        if config.class_token:
            self.class_token = nn.Parameter(torch.randn(width) * token)
        self.positions = PositionTable(
            config.positions, grid, width, config.position_base, lead, table
        )
        self.latent_tokens = nn.Parameter(torch.randn(latents, width) * token)
        if config.latent_positions:
            self.latent_positions = nn.Parameter(torch.randn(latents, width) * table)
        self.text = None if config.text is None else TextInput(config.text, width, table)
        inner = config.transformer
        norm = inner.norm if config.norm_in else "none"
        self.norm_in = make_norm(norm, width, inner.norm_eps)
        self.transformer = Transformer(inner)
        if config.slot_projection:
            self.slots = nn.Parameter(torch.randn(latents, width, dim) * width**-0.5)
        else:
            self.proj = nn.Linear(width, dim)
        self.latent_norm = make_norm(config.latent_norm, dim, affine=False)
        mask = causal_last(lead + grid[0] * grid[1], latents)
        self.register_buffer(
            "mask", mask if config.attention == "causal_latents" else None, persistent=False
        )
        init_weights(self, inner)
        with torch.no_grad():
            (self.slots if config.slot_projection else self.proj.weight).mul_(config.latent_gain)

    def forward(self, x: Tensor, condition: Condition | None = None) -> Latents:
        """x [B, 3, H, W] in 0..1 -> latents [B, N, D]."""
        config = self.config
        y = self.patch_embed((x - config.pixel_mean) / config.pixel_std)  # [B, g, W]
        cells = y.shape[1]
        if config.class_token:
            y = torch.cat([self.class_token.to(y.dtype).expand(len(x), 1, -1), y], dim=1)
        y = self.positions(y)
        latents = self.latent_tokens.to(y.dtype)
        if config.latent_positions:
            latents = latents + self.latent_positions.to(y.dtype)
        y, mask = torch.cat([y, latents.expand(len(x), -1, -1)], dim=1), self.mask
        if self.text is not None:
            tokens, seen = self.text(condition, len(x), y)
            pieces = (y.shape[1], tokens.shape[1] if seen is None else seen)
            mask = joined(*pieces, batch=len(x), device=y.device)
            y = torch.cat([y, tokens], dim=1)
        first = int(config.class_token)
        features = {}
        if self.wants_patches:
            y = self.transformer(self.norm_in(y), mask=mask)[:, first:]
            features["patches"] = y[:, :cells]
            latents = y[:, cells : cells + config.num_latents]
        else:
            wanted = slice(first + cells, first + cells + config.num_latents)
            latents = self.transformer(self.norm_in(y), mask=mask, only=wanted)
        if config.slot_projection:
            values = torch.einsum("bnw,nwd->bnd", latents, self.slots.to(latents.dtype))
        else:
            values = self.proj(_reinterpreted(latents) if config.reinterpret else latents)
        features["latents"] = latents
        return Latents(self.latent_norm(values.float()), self.grid, features)


def token_stds(kind: str, width: int) -> tuple[float, float]:
    """Standard deviations of learned tokens and of learned tables at the start."""
    return (1.0, 0.02) if kind == "unit" else (width**-0.5, width**-0.5)


def _reinterpreted(latents: Tensor) -> Tensor:
    """[B, N, W] in memory, read as [B, W, N] and handed on as [B, N, W]."""
    batch, count, width = latents.shape
    return latents.contiguous().view(batch, width, count).transpose(1, 2)
