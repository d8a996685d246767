"""StyleGAN2's residual discriminator, one logit per image, as LlamaGen and GigaTok have it.

Of the paper's (arXiv 1912.04958) it keeps residual blocks and blurred downsampling; it has neither
equalized learning rates nor the standard deviation over the batch.
"""

from __future__ import annotations

import itertools
import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.errors import InputError


class StyleGANDiscriminatorConfig(Config):
    kind: Literal["stylegan"] = "stylegan"
    image_size: int = Field(default=256, ge=8, le=2**12)
    """Side of the images, a power of two: the last layer sees a map of 4 x 4."""
    width: int = Field(default=512, ge=1, le=2**14)
    """Channels of maps of 32 cells per side and smaller."""
    multiplier: int = Field(default=1, ge=1, le=64)
    """Factor of the channels of larger maps, which are halved with each doubling of the side."""

    @field_validator("image_size")
    @classmethod
    def _power(cls, value: int) -> int:
        if value & (value - 1):
            raise InputError(f"image_size={value} is no power of two; expected 8, 16, 32, 64, ...")
        return value

    @classmethod
    def tiny(cls) -> StyleGANDiscriminatorConfig:
        return cls(image_size=32, width=8)

    def channels(self, side: int) -> int:
        """Channels of a map of that side."""
        return self.width if side <= 32 else max(self.width * 32 * self.multiplier // side, 1)


class ReflectedBlur(nn.Module):
    """(1, 2, 1) x (1, 2, 1) / 16 over each channel, the border reflected: [B, C, h, w] -> same."""

    def forward(self, x: Tensor) -> Tensor:
        line = torch.tensor((0.25, 0.5, 0.25), dtype=x.dtype, device=x.device)
        kernel = (line[:, None] * line).expand(x.shape[1], 1, 3, 3)
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, groups=x.shape[1])


class Block(nn.Module):
    """Two convolutions and a strided one behind a blur, plus a strided shortcut, over sqrt(2)."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.shortcut = nn.Conv2d(inside, outside, 1, stride=2)
        self.layers = nn.Sequential(
            nn.Conv2d(inside, outside, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(outside, outside, 3, padding=1),
            nn.LeakyReLU(0.2),
            ReflectedBlur(),
            nn.Conv2d(outside, outside, 3, padding=1, stride=2),
        )

    def forward(self, x: Tensor) -> Tensor:
        return (self.layers(x) + self.shortcut(x)) * 2**-0.5


@register("discriminator", StyleGANDiscriminatorConfig)
class StyleGANDiscriminator(nn.Module):
    """[B, 3, side, side] in 0..1 -> logits [B, 1]; torch's initialization."""

    def __init__(self, config: StyleGANDiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        sides = [config.image_size >> i for i in range(int(math.log2(config.image_size)) - 1)]
        widths = [config.channels(side) for side in sides]  # the last side is 4
        self.enter = nn.Sequential(nn.Conv2d(3, widths[0], 3, padding=1), nn.LeakyReLU(0.2))
        self.blocks = nn.Sequential(*(Block(a, b) for a, b in itertools.pairwise(widths)))
        last = config.channels(4)
        self.leave = nn.Sequential(
            nn.Conv2d(widths[-1], last, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(last * 16, last),
            nn.LeakyReLU(0.2),
            nn.Linear(last, 1),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        side = self.config.image_size
        if pixels.shape[-2:] != (side, side):
            raise InputError(
                f"discriminator: stylegan is made for images of {side} x {side}, not "
                f"{tuple(pixels.shape[-2:])}; set its image_size"
            )
        return self.leave(self.blocks(self.enter(pixels * 2 - 1)))
