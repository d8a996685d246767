"""CNN encoder: a pyramid of residual blocks, one latent for each position of its last map.

With `channel_mult: [1, 1, 2, 2, 4]` this is the f16 encoder of MaskGIT-VQGAN (arXiv 2202.04200,
no attention anywhere). Letters: B batch, h w positions, D width of the quantizer's input.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.records import Condition, Latents
from vistok.core.shapes import Shape
from vistok.encoders.base import Encoder
from vistok.layers.conv import ConvConfig, ConvNorm, Level, ResBlock


class CNNEncoderConfig(Config):
    kind: Literal["cnn"] = "cnn"
    conv: ConvConfig = ConvConfig()
    bias_in: bool = True
    """Bias of the first convolution; MaskGIT-VQGAN's has none."""
    downsample: Literal["average"] = "average"
    """Way to a level of half the sides: means of 2x2 positions."""
    kernel_out: Literal[1, 3] = 3
    """Side of the last convolution; 1 in MaskGIT-VQGAN."""

    @classmethod
    def tiny(cls) -> CNNEncoderConfig:
        return cls(conv=ConvConfig.tiny())


@register("encoder", CNNEncoderConfig)
class CNNEncoder(Encoder):
    def __init__(self, config: CNNEncoderConfig, shape: Shape, dim: int) -> None:
        """
        Args:
            shape: of the input space; sides are multiples of 2 ** (levels - 1).
            dim: D, the width of a latent.
        """
        super().__init__()
        self.config = config
        conv, widths = config.conv, config.conv.widths
        self.grids = (conv.grid(shape),)
        self.conv_in = nn.Conv2d(shape.channels, conv.channels, 3, padding=1, bias=config.bias_in)
        halve = [nn.AvgPool2d(2) for _ in widths[1:]]
        self.levels = nn.ModuleList(
            Level(conv, inside, out, way)
            for inside, out, way in zip(
                (conv.channels, *widths), widths, (*halve, None), strict=False
            )
        )
        self.mid = nn.Sequential(
            *(ResBlock(conv, widths[-1], widths[-1]) for _ in range(conv.mid_blocks))
        )
        self.norm = ConvNorm(conv, widths[-1])
        side = config.kernel_out
        self.conv_out = nn.Conv2d(widths[-1], dim, side, padding=side // 2)

    def forward(self, x: Tensor, condition: Condition | None = None) -> Latents:
        """x [B, C, H, W] -> latents [B, h*w, D], row-major."""
        y = self.conv_in(x)
        for level in self.levels:
            y = level(y)
        y = self.mid(y)
        values = rearrange(self.conv_out(F.silu(self.norm(y))), "b d h w -> b (h w) d")
        return Latents(values.float(), self.grids, {"grid": rearrange(y, "b c h w -> b (h w) c")})
