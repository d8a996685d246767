"""CNN encoder: a pyramid of residual blocks, one latent for each position of its last map.

With `channel_mult: [1, 1, 2, 2, 4]` this is the f16 encoder of MaskGIT-VQGAN (arXiv 2202.04200,
no attention anywhere). Letters: B batch, h w positions, D width of the quantizer's input.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.records import Condition, Latents
from vistok.layers.conv import ConvConfig, ConvNorm, Level, ResBlock


class CNNEncoderConfig(Config):
    kind: Literal["cnn"] = "cnn"
    conv: ConvConfig = ConvConfig()
    pixel_mean: float = 0.5
    pixel_std: float = Field(default=0.5, gt=0)
    """Pixels enter as (x - pixel_mean) / pixel_std: 0.5 and 0.5 give -1..1, 0 and 1 leave them."""
    bias_in: bool = True
    """Of the first convolution; MaskGIT-VQGAN's has none."""
    downsample: Literal["average"] = "average"
    """How a level hands on half its sides: means of 2x2 positions."""
    kernel_out: Literal[1, 3] = 3
    """Side of the last convolution; 1 in MaskGIT-VQGAN."""


@register("encoder", CNNEncoderConfig)
class CNNEncoder(nn.Module):
    def __init__(self, config: CNNEncoderConfig, image_size: tuple[int, int], dim: int) -> None:
        """
        Args:
            image_size: (H, W), multiples of 2 ** (levels - 1).
            dim: D, the width of a latent.
        """
        super().__init__()
        self.config = config
        conv, widths = config.conv, config.conv.widths
        self.grid = conv.grid(image_size)
        self.conv_in = nn.Conv2d(3, conv.channels, 3, padding=1, bias=config.bias_in)
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
        """x [B, 3, H, W] in 0..1 -> latents [B, h*w, D], row-major."""
        y = self.conv_in((x - self.config.pixel_mean) / self.config.pixel_std)
        for level in self.levels:
            y = level(y)
        y = self.mid(y)
        values = rearrange(self.conv_out(F.silu(self.norm(y))), "b d h w -> b (h w) d")
        return Latents(values.float(), self.grid, {"grid": rearrange(y, "b c h w -> b (h w) c")})
