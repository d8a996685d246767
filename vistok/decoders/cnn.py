"""CNN decoder: a grid of code vectors through a pyramid of residual blocks, up to the pixels.

With `channel_mult: [1, 1, 2, 2, 4]` this is the f16 decoder of MaskGIT-VQGAN (arXiv 2202.04200),
which also is the pixel decoder of two-stage TiTok and One-D-Piece.
Letters: B batch, h w positions, D width of the values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.core.records import Condition, Decoded, Noisy
from vistok.core.shapes import Grid, Shape, cells
from vistok.decoders.base import Decoder
from vistok.layers.conv import ConvConfig, ConvNorm, Level, ResBlock, Upsample


class CNNDecoderConfig(Config):
    kind: Literal["cnn"] = "cnn"
    conv: ConvConfig = ConvConfig()

    @classmethod
    def tiny(cls) -> CNNDecoderConfig:
        return cls(conv=ConvConfig.tiny())


@register("decoder", CNNDecoderConfig)
class CNNDecoder(Decoder):
    """A convolution needs the whole grid: it serves no prefix."""

    def __init__(
        self, config: CNNDecoderConfig, shape: Shape, grids: Sequence[Grid], dim: int
    ) -> None:
        """
        Args:
            shape: of the output space; sides are multiples of 2 ** (levels - 1).
            grids: of the values; one, the smallest map. dim: D, the width of a value.
        Raises ValueError for another number of values.
        """
        super().__init__()
        self.config = config
        conv, widths = config.conv, config.conv.widths
        self.grid = conv.grid(shape)
        if sum(map(cells, grids)) != cells(self.grid):
            raise InputError(
                f"decoder.conv: {len(widths)} levels make {shape.sides} of a grid of {self.grid}, "
                f"but there are {sum(map(cells, grids))} values; use another channel_mult"
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
        self.conv_out = nn.Conv2d(widths[0], shape.channels, 3, padding=1)

    def forward(
        self,
        values: Tensor,
        present: Tensor | None = None,
        condition: Condition | None = None,
        noisy: Noisy | None = None,
    ) -> Decoded:
        """values [B, h*w, D], row-major -> [B, C, H, W] of the output space."""
        if present is not None:
            raise InputError("a cnn decoder needs every latent: train without a length regularizer")
        h, w = self.grid
        grid = rearrange(values.to(self.conv_in.weight.dtype), "b (h w) d -> b d h w", h=h, w=w)
        y = self.mid(self.conv_in(grid.contiguous()))  # as it lies it would be channels-last
        features = {"grid": rearrange(y, "b c h w -> b (h w) c")}
        for level in reversed(self.levels):
            y = level(y)
        y = self.conv_out(F.silu(self.norm(y))).float()
        return Decoded(y, y, features)

    @property
    def last_layer(self) -> nn.Parameter:
        return self.conv_out.weight
