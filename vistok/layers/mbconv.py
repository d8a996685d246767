"""Convolutions in front of a vision transformer: MBConv stages (ViTamin, arXiv 2404.02132).

A stem and two stages of inverted bottlenecks with depthwise 3x3 convolutions, each half the sides
of what it reads, then a convolution of stride 2 to the transformer's width: sides are divided by
16. Norms are over channels. Letters: B batch, C channels, h w positions of a map.
"""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from vistok.config import Config

STRIDE = 16  # pixels of a side of a cell
Count = Annotated[int, Field(ge=1, le=2**14)]


class MbConvConfig(Config):
    """Widths and depths of the convolutions."""

    stem: int = Field(default=192, ge=1, le=2**14)
    """Channels of the stem."""
    channels: tuple[Count, Count] = (192, 384)
    """Channels of the two stages."""
    blocks: tuple[Count, Count] = (2, 4)
    """Blocks of the two stages."""
    expand: int = Field(default=4, ge=1, le=64)
    """Channels inside of a block, as a multiple of those that come out."""
    norm_eps: float = Field(default=1e-6, gt=0)

    @classmethod
    def tiny(cls) -> MbConvConfig:
        return cls(stem=4, channels=(4, 8), blocks=(1, 1), expand=2)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map [B, C, h, w]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class Means(nn.Module):
    """Means of 3x3 positions, every second one, and a 1x1 convolution where channels change."""

    def __init__(self, inside: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Identity() if inside == out else nn.Conv2d(inside, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False))


class MbConvBlock(nn.Module):
    """x + narrow(gelu(depthwise(gelu(widen(norm x)))))."""

    def __init__(self, config: MbConvConfig, inside: int, out: int, stride: int) -> None:
        super().__init__()
        wide = config.expand * out
        self.shortcut = Means(inside, out) if stride == 2 else nn.Identity()
        self.norm = ChannelNorm(inside, eps=config.norm_eps)
        self.widen = nn.Conv2d(inside, wide, 1)
        self.depthwise = nn.Conv2d(wide, wide, 3, stride=stride, padding=1, groups=wide)
        self.narrow = nn.Conv2d(wide, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(F.gelu(self.widen(self.norm(x))))
        return self.shortcut(x) + self.narrow(F.gelu(y))


class MbConvStem(nn.Module):
    """Images [B, C, H, W] -> [B, W', H/16, W/16]."""

    def __init__(self, config: MbConvConfig, channels: int, width: int) -> None:
        """
        Args:
            channels: of the images. width: channels of the map.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(channels, config.stem, 3, stride=2, padding=1)
        self.norm1 = ChannelNorm(config.stem, eps=config.norm_eps)
        self.conv2 = nn.Conv2d(config.stem, config.stem, 3, padding=1)
        inputs = (config.stem, config.channels[0])
        self.stages = nn.ModuleList()
        for inside, out, count in zip(inputs, config.channels, config.blocks, strict=True):
            first = MbConvBlock(config, inside, out, stride=2)
            rest = (MbConvBlock(config, out, out, stride=1) for _ in range(count - 1))
            self.stages.append(nn.Sequential(first, *rest))
        self.norm = ChannelNorm(config.channels[1], eps=config.norm_eps)
        self.proj = nn.Conv2d(config.channels[1], width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.gelu(self.norm1(self.conv1(x))))
        for stage in self.stages:
            y = stage(y)
        return self.proj(self.norm(y))
