"""ViT decoder with mask tokens (TiTok, arXiv 2406.07550).

A grid of copies of one mask token and the latents go through one transformer; the grid comes out
as patches. A latent that is not present is overwritten by a learned vector *after* its position
was added (`missing: mask_token`, FlexTok) or not attended at all (`missing: drop`, One-D-Piece),
which equals a shorter sequence without changing any shape.
Letters: B batch, g patches, N latents, W width, D width of the values.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.draws import Draws
from vistok.core.records import Condition, Decoded
from vistok.layers.heads import CodeLogits
from vistok.layers.masks import joined
from vistok.layers.norms import make_norm
from vistok.layers.patchify import Unpatchify, patch_grid
from vistok.layers.positions import PositionKind, PositionTable
from vistok.layers.text import TextInput, TextInputConfig
from vistok.layers.transformer import Transformer, TransformerConfig, init_weights


class ViTDecoderConfig(Config):
    kind: Literal["vit"] = "vit"
    patch_size: int = Field(default=16, ge=1)
    """Of the grid that is decoded; with `head: codes` the pixels of one code."""
    transformer: TransformerConfig = TransformerConfig()
    positions: PositionKind = "sincos"
    position_base: float = Field(default=10000.0, gt=1)
    """Of the sin-cos frequencies."""
    slot_projection: bool = False
    """Each latent slot has its own input projection."""
    missing: Literal["mask_token", "drop", "refuse"] = "refuse"
    """What a missing latent is; none: only whole sequences can be decoded."""
    class_token: bool = False
    """A learned token in front of the grid, which nothing reads (TiTok's CLIP heritage)."""
    norm_in: bool = False
    """The transformer's norm also before the first block (TiTok's ln_pre)."""
    text: TextInputConfig | None = None
    """Text features behind the latents (TA-TiTok, TexTok); null = none are read."""
    token_std: Literal["unit", "width"] = "unit"
    """Of learned tokens and tables at the start: the own scale of each, or width**-0.5 (TiTok)."""
    head: Literal["pixels", "codes"] = "pixels"
    """codes: logits over the codes of a `output_space: {kind: codes}` (TiTok's proxy codes)."""
    codes: int = Field(default=1024, ge=2)
    """K of that head."""
    head_conv: bool = False
    """A 3x3 convolution behind the patches (TiTok's pixel head)."""
    smooth: int = Field(default=0, ge=0)
    """Width of a residual pair of 3x3 convolutions behind the patches; 0 = none."""
    head_gain: float = Field(default=0.1, gt=0)
    """Scale of the pixel head at the start: images begin near grey, contrast is learned."""
    pixel_mean: float = 0.5
    pixel_std: float = Field(default=0.5, gt=0)
    """Pixels are the head's output * pixel_std + pixel_mean."""


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
        self.prefix = "none" if config.missing == "refuse" else "token"
        self.cells = grid[0] * grid[1]
        token, table = width**-0.5, 0.02
        place = 1.0  # of the latents' table
        if config.token_std == "width":
            table = place = token
        if config.slot_projection:
            self.slots = nn.Parameter(torch.randn(latents, dim, width) * dim**-0.5)
        else:
            self.embed = nn.Linear(dim, width)
        self.mask_token = nn.Parameter(torch.randn(width) * token)
        lead = int(config.class_token)
        if config.class_token:
            self.class_token = nn.Parameter(torch.randn(width) * token)
        self.positions = PositionTable(
            config.positions, grid, width, config.position_base, lead, table
        )
        self.latent_positions = nn.Parameter(torch.randn(latents, width) * place)
        self.text = None if config.text is None else TextInput(config.text, width, table)
        if config.missing == "mask_token":
            self.missing_token = nn.Parameter(torch.randn(width) * token)
        inner = config.transformer
        norm = inner.norm if config.norm_in else "none"
        self.norm_in = make_norm(norm, width, inner.norm_eps)
        self.transformer = Transformer(inner)
        if config.head == "codes":
            self.head = CodeLogits(width, grid, config.codes)
        else:
            self.head = Unpatchify(
                config.patch_size, width, grid, smooth=config.smooth, conv=config.head_conv
            )
        init_weights(self, inner)
        if config.head == "pixels":
            with torch.no_grad():
                self.head.proj.weight.mul_(config.head_gain)
        if config.smooth:
            nn.init.zeros_(self.head.smooth[-1].weight)

    def forward(
        self,
        values: Tensor,
        present: Tensor | None = None,
        condition: Condition | None = None,
        draws: Draws | None = None,
    ) -> Decoded:
        """values [B, N, D], present [B, N] bool (None = all) -> pixels [B, 3, H, W], unclamped;
        with `head: codes` logits [B, K, h, w]."""
        if self.config.slot_projection:
            latents = torch.einsum("bnd,ndw->bnw", values.to(self.slots.dtype), self.slots)
        else:
            latents = self.embed(values.to(self.embed.weight.dtype))
        latents = latents + self.latent_positions.to(latents.dtype)
        if present is None and self.config.missing == "mask_token":
            # Nothing is absent, but a parameter that is in no graph stops DDP.
            present = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
        if present is not None:
            if self.config.missing == "refuse":
                raise ValueError(
                    "this decoder cannot leave latents out (missing: refuse); "
                    "set decoder.missing to mask_token or drop and train with a length regularizer"
                )
            if self.config.missing == "mask_token":
                latents = torch.where(
                    present[..., None], latents, self.missing_token.to(latents.dtype)
                )
        cells = self.mask_token.to(latents.dtype).expand(len(values), self.cells, -1)
        if self.config.class_token:
            token = self.class_token.to(latents.dtype).expand(len(values), 1, -1)
            cells = torch.cat([token, cells], dim=1)
        y = torch.cat([self.positions(cells), latents], dim=1)
        cut = present is not None and self.config.missing == "drop"
        pieces = [cells.shape[1], present if cut else latents.shape[1]]
        if self.text is not None:
            tokens, seen = self.text(condition, len(values), y)
            pieces.append(tokens.shape[1] if seen is None else seen)
            y = torch.cat([y, tokens], dim=1)
        mask = joined(*pieces, batch=len(values), device=y.device)
        first = int(self.config.class_token)
        wanted = slice(first, first + self.cells)
        grid = self.transformer(self.norm_in(y), mask=mask, only=wanted)
        out = self.head(grid).float()
        if self.config.head == "pixels":
            out = out * self.config.pixel_std + self.config.pixel_mean
        return Decoded(out, out, {"grid": grid})

    @property
    def last_layer(self) -> nn.Parameter:
        return self.head.last_layer
