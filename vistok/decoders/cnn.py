"""CNN decoder: a grid of code vectors through a pyramid of residual blocks, up to the pixels.

With `channel_mult: [1, 1, 2, 2, 4]` this is the f16 decoder of MaskGIT-VQGAN (arXiv 2202.04200),
which also is the pixel decoder of two-stage TiTok and One-D-Piece.
Letters: B batch, h w positions, D width of the values.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.draws import Draws
from vistok.core.records import Condition, Decoded
from vistok.layers.conv import ConvConfig, ConvNorm, Level, ResBlock, Upsample


class CNNDecoderConfig(Config):
    kind: Literal["cnn"] = "cnn"
    conv: ConvConfig = ConvConfig()
    pixel_mean: float = 0.5
    pixel_std: float = Field(default=0.5, gt=0)
    """Pixels leave as y * pixel_std + pixel_mean; 0 and 1 leave them as they are."""


@register("decoder", CNNDecoderConfig)
class CNNDecoder(nn.Module):
    prefix = "none"
    """A convolution needs the whole grid."""

    def __init__(
        self, config: CNNDecoderConfig, image_size: tuple[int, int], latents: int, dim: int
    ) -> None:
        """
        Args:
            image_size: (H, W), multiples of 2 ** (levels - 1).
            latents: h*w of the smallest map. dim: D, the width of the quantizer's values.
        Raises ValueError for another number of latents.
        """
        super().__init__()
        self.config = config
        conv, widths = config.conv, config.conv.widths
        self.grid = conv.grid(image_size)
        if latents != self.grid[0] * self.grid[1]:
            raise ValueError(
                f"decoder.conv: {len(widths)} levels make {tuple(image_size)} pixels of a grid of "
                f"{self.grid}, but the encoder gives {latents} latents; use another channel_mult"
            )
        self.conv_in = nn.Conv2d(dim, widths[-1], 3, padding=1)
        self.mid = nn.Sequential(
            *(ResBlock(conv, widths[-1], widths[-1]) for _ in range(conv.mid_blocks))
        )
        # Level 0 is that of the image, as in the encoder: the last to run.
        double = [Upsample(width) for width in widths[1:]]
        self.levels = nn.ModuleList(
            Level(conv, inside, out, way)
            for inside, out, way in zip(
                (*widths[1:], widths[-1]), widths, (None, *double), strict=True
            )
        )
        self.norm = ConvNorm(conv, widths[0])
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(
        self,
        values: Tensor,
        present: Tensor | None = None,
        condition: Condition | None = None,
        draws: Draws | None = None,
    ) -> Decoded:
        """values [B, h*w, D], row-major -> pixels [B, 3, H, W], unclamped."""
        if present is not None:
            raise ValueError("a cnn decoder needs every latent: train without a length regularizer")
        h, w = self.grid
        grid = rearrange(values.to(self.conv_in.weight.dtype), "b (h w) d -> b d h w", h=h, w=w)
        y = self.mid(self.conv_in(grid.contiguous()))  # as it lies it would be channels-last
        features = {"grid": rearrange(y, "b c h w -> b (h w) c")}
        for level in reversed(self.levels):
            y = level(y)
        y = self.conv_out(F.silu(self.norm(y))).float()
        pixels = y * self.config.pixel_std + self.config.pixel_mean
        return Decoded(pixels, pixels, features)

    @property
    def last_layer(self) -> nn.Parameter:
        return self.conv_out.weight
