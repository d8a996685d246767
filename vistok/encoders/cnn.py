"""CNN encoder: a pyramid of residual blocks, one latent for each position of its last map.

With `channel_mult: [1, 1, 2, 2, 4]` this is the f16 encoder of MaskGIT-VQGAN (arXiv 2202.04200,
no attention anywhere); with attention, strided convolutions and a map of its own width before the
quantizer that of LlamaGen (arXiv 2406.06525); without biases and with centered strides that of
Open-MAGVIT2 (arXiv 2409.04410).
Letters: B batch, h w positions, D width of the quantizer's input.
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
from vistok.core.shapes import Shape
from vistok.encoders.base import Encoder
from vistok.layers.conv import ConvConfig, Downsample, Level, map_norm, middle


class CNNEncoderConfig(Config):
    kind: Literal["cnn"] = "cnn"
    conv: ConvConfig = ConvConfig()
    bias_in: bool = True
    """Bias of the first convolution; MaskGIT-VQGAN's has none."""
    downsample: Literal["average", "conv", "conv_centered"] = "average"
    """Way to a level of half the sides: means of 2x2 positions, a 3x3 convolution of stride 2 with
    zeros right and bottom (LlamaGen), or one with zeros all around (Open-MAGVIT2)."""
    kernel_out: Literal[1, 3] = 3
    """Side of the last convolution; 1 in MaskGIT-VQGAN."""
    z_channels: int | None = Field(default=None, ge=1, le=2**14)
    """Channels of the last convolution, before a 1x1 one to the quantizer's width (LlamaGen's
    quant_conv; the tap `z` is between them); null = it gives that width itself."""
    kernel_proj: Literal[1, 3, 5, 7] = 1
    """Side of that convolution to the quantizer's width; 3 in VAR."""

    @classmethod
    def tiny(cls) -> CNNEncoderConfig:
        return cls(conv=ConvConfig.tiny())


@register("encoder", CNNEncoderConfig)
class CNNEncoder(Encoder):
    def __init__(self, config: CNNEncoderConfig, shape: Shape, dim: int) -> None:
        """
        Args:
            shape: of the input space; sides are multiples of 2 ** `conv.ways`.
            dim: D, the width of a latent.
        """
        super().__init__()
        self.config = config
        conv, widths = config.conv, config.conv.widths
        self.grids = (conv.grid(shape),)
        self.conv_in = nn.Conv2d(shape.channels, conv.channels, 3, padding=1, bias=config.bias_in)
        halve = {
            "average": lambda width: nn.AvgPool2d(2),
            "conv": Downsample,
            "conv_centered": lambda width: Downsample(width, centered=True),
        }[config.downsample]
        ways = [halve(width) if conv.halves(i) else None for i, width in enumerate(widths)]
        inputs = (conv.channels, *widths[:-1])
        self.levels = nn.ModuleList(
            Level(conv, inside, out, way, attend=conv.attends(i))
            for i, (inside, out, way) in enumerate(zip(inputs, widths, ways, strict=True))
        )
        self.mid = middle(conv)
        self.norm = map_norm(conv, widths[-1])
        side, channels = config.kernel_out, config.z_channels
        self.conv_out = nn.Conv2d(widths[-1], channels or dim, side, padding=side // 2)
        self.proj, self.kernel = None, config.kernel_proj
        if channels is not None and self.kernel == 1:
            self.proj = nn.Linear(channels, dim)
        elif channels is not None:
            self.proj = nn.Conv2d(channels, dim, self.kernel, padding=self.kernel // 2)

    def forward(self, x: Tensor, condition: Condition | None = None) -> Latents:
        """x [B, C, H, W] -> latents [B, h*w, D], row-major."""
        y = self.conv_in(x)
        for level in self.levels:
            y = level(y)
        y = self.mid(y)
        features = {"grid": rearrange(y, "b c h w -> b (h w) c")}
        z = self.conv_out(F.silu(self.norm(y)))
        values = rearrange(z, "b d h w -> b (h w) d")
        if self.proj is not None:
            features["z"] = values
            if self.kernel == 1:
                values = self.proj(values)
            else:
                values = rearrange(self.proj(z), "b d h w -> b (h w) d")
        return Latents(values.float(), self.grids, features)
