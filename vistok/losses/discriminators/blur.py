"""The blurring discriminator of MaskGIT, one logit per cell: TiTok, TA-TiTok, One-D-Piece,
Open-MAGVIT2.

It halves its maps by a blur instead of a stride, which leaves no aliases to look at, and may pool
them to a fixed grid.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.layers.conv import Blur


class BlurDiscriminatorConfig(Config):
    kind: Literal["blur"] = "blur"
    width: int = Field(default=128, ge=1, le=2**14)
    """Channels of the first layer and the first stage; each further stage doubles them."""
    layers: int = Field(default=3, ge=1, le=16)
    """Stages; each halves the map."""
    norm_groups: int = Field(default=32, ge=1, le=2**14)
    """Groups of the group norms (eps 1e-5); width must be a multiple of it."""
    slope: float = Field(default=0.1, ge=0)
    """Slope of the leaky ReLUs on their negative side."""
    blur: Literal[3, 4, 5] | None = 4
    """Taps of the blur, a row of Pascal's triangle; null = means of 2 x 2 cells instead."""
    blur_padding: Literal["four", "own"] = "four"
    """Taps that borders are padded for: four whatever their number, as in TiTok's code, or their
    own, so that maps are halved."""
    pool: int | None = Field(default=16, ge=1, le=2**10)
    """Side of the logits: the last map's maxima over pool x pool cells, whatever its size; null =
    a logit for each cell of the last map (MaskBit, Open-MAGVIT2)."""
    reads: Literal["unit", "signed"] = "unit"
    """Range of the pixels that the first layer reads: 0..1 (TiTok), or -1..1 (Open-MAGVIT2)."""

    @model_validator(mode="after")
    def _divides(self) -> BlurDiscriminatorConfig:
        if self.width % self.norm_groups:
            raise InputError(
                f"width={self.width} must be a multiple of norm_groups={self.norm_groups}"
            )
        return self

    @classmethod
    def tiny(cls) -> BlurDiscriminatorConfig:
        return cls(width=8, layers=1, norm_groups=4)


@register("discriminator", BlurDiscriminatorConfig)
class BlurDiscriminator(nn.Module):
    """[B, 3, H, W] in 0..1 -> logits [B, 1, pool, pool], or [B, 1, h, w] of the last map without
    pooling; torch's initialization."""

    def __init__(self, config: BlurDiscriminatorConfig) -> None:
        super().__init__()
        width, act = config.width, lambda: nn.LeakyReLU(config.slope)
        self.enter = nn.Sequential(nn.Conv2d(3, width, 5, padding=2), act())
        stages = []
        for i in range(config.layers):
            inside, width = width, config.width * 2**i
            conv = nn.Conv2d(inside, width, 3, padding=1)
            norm = nn.GroupNorm(config.norm_groups, width, eps=1e-5)
            if config.blur is None:
                half: nn.Module = nn.AvgPool2d(2)
            else:
                half = Blur(config.blur, 4 if config.blur_padding == "four" else None)
            stages.append(nn.Sequential(conv, half, norm, act()))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.Identity() if config.pool is None else nn.AdaptiveMaxPool2d(config.pool)
        self.signed = config.reads == "signed"
        self.to_logits = nn.Sequential(
            nn.Conv2d(width, width, 1), act(), nn.Conv2d(width, 1, 5, padding=2)
        )

    def forward(self, pixels: Tensor) -> Tensor:
        pixels = pixels * 2 - 1 if self.signed else pixels
        return self.to_logits(self.pool(self.stages(self.enter(pixels))))
