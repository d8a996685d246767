"""Residual blocks of causal 3D convolutions and the ways between their levels (MAGVIT-v2).

Every convolution looks back only, but group norms average over all frames of a clip, so that a clip
in pieces gives other numbers than the whole (as in arXiv 2310.05737 and Open-MAGVIT2, 2409.04410).
Letters: B batch, C channels, T frames, h w positions of a map.
"""

from __future__ import annotations

import itertools
from typing import Annotated

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import Config
from vistok.core.errors import InputError
from vistok.core.shapes import Grid, Shape, latent_frames
from vistok.layers.causal_conv import CausalConv3d, TimePadding
from vistok.layers.conv import ConvNorm
from vistok.layers.dropout import Dropout


class CausalResnetConfig(Config):
    """A pyramid of levels; each halves the sides of the one before it, some halve time too."""

    channels: int = Field(default=128, ge=1, le=2**14)
    """Channels of level 0 before its multiplier."""
    channel_mult: tuple[Annotated[int, Field(ge=1, le=256)], ...] = Field(
        default=(1, 2, 2, 4), min_length=1, max_length=12
    )
    """Level i has channels x channel_mult[i]; level 0 is the clip's."""
    halve_time: tuple[bool, ...] = (False, True, True)
    """For each way from a level to the next: true = 1 + 2k frames become 1 + k there."""
    blocks: int = Field(default=4, ge=1, le=256)
    """Residual blocks of a level."""
    mid_blocks: int = Field(default=4, ge=0, le=256)
    """Residual blocks between encoder and latents, and between latents and decoder."""
    norm_groups: int = Field(default=32, ge=1, le=2**14)
    """Groups of the group norms; every level's channels are a multiple of it."""
    norm_eps: float = Field(default=1e-6, gt=0)
    bias: bool = False
    """Bias of the convolutions inside blocks."""
    time_padding: TimePadding = "zeros"
    """Frames in front of the first one: zeros in Open-MAGVIT2."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of activations inside blocks that training drops, keyed by sample."""

    @classmethod
    def tiny(cls) -> CausalResnetConfig:
        return cls(
            channels=8,
            channel_mult=(1, 1, 2),
            halve_time=(False, True),
            blocks=1,
            mid_blocks=1,
            norm_groups=4,
        )

    @model_validator(mode="after")
    def _fits(self) -> CausalResnetConfig:
        for mult in self.channel_mult:
            if self.channels * mult % self.norm_groups:
                raise InputError(
                    f"channels={self.channels} x channel_mult {mult} must be a multiple of "
                    f"norm_groups={self.norm_groups}"
                )
        if len(self.halve_time) != len(self.channel_mult) - 1:
            raise InputError(
                f"halve_time={list(self.halve_time)}: expected one value for each of the "
                f"{len(self.channel_mult) - 1} ways between the levels of channel_mult"
            )
        return self

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.channels * mult for mult in self.channel_mult)

    @property
    def frame_stride(self) -> int:
        """Frames that each latent frame after the first stands for."""
        return 2 ** sum(self.halve_time)

    def grid(self, shape: Shape) -> Grid:
        """(t, h, w) of the last level's map; InputError for sides or frames it cannot make."""
        stride, time, frames = 2 ** len(self.halve_time), self.frame_stride, shape.frames or 1
        if any(side % stride for side in shape.image_size):
            raise InputError(
                f"image_size={shape.image_size} is not a multiple of {stride}, as the "
                f"{len(self.channel_mult)} levels of channel_mult want it; use another size"
            )
        count = latent_frames(frames, time, f"frames={frames}: this causal network")
        return (count, *(side // stride for side in shape.image_size))

    def conv(self, inside: int, out: int, kernel: int = 3, **options: object) -> CausalConv3d:
        return CausalConv3d(inside, out, kernel, time_mode=self.time_padding, **options)


class CausalResBlock(nn.Module):
    """Norm, SiLU, 3x3x3 convolution, twice, added to the input; [B, C, T, h, w] -> C' channels."""

    def __init__(self, config: CausalResnetConfig, inside: int, out: int) -> None:
        super().__init__()
        self.norm1 = ConvNorm(config, inside)
        self.conv1 = config.conv(inside, out, bias=config.bias)
        self.norm2 = ConvNorm(config, out)
        self.dropout = Dropout(config.dropout)
        self.conv2 = config.conv(out, out, bias=config.bias)
        self.shortcut = None
        if inside != out:
            self.shortcut = config.conv(inside, out, 1, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(self.dropout(F.silu(self.norm2(y))))
        return y + (x if self.shortcut is None else self.shortcut(x))


class CausalResLevel(nn.Module):
    """Blocks of one resolution, and the way to the next one, if any."""

    def __init__(
        self, config: CausalResnetConfig, inside: int, out: int, way: nn.Module | None = None
    ) -> None:
        super().__init__()
        widths = [inside] + [out] * config.blocks
        self.blocks = nn.Sequential(
            *(CausalResBlock(config, a, b) for a, b in itertools.pairwise(widths))
        )
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(x)
        return x if self.way is None else self.way(x)


def residual_middle(config: CausalResnetConfig) -> nn.Sequential:
    """Blocks of the last level's width."""
    width = config.widths[-1]
    return nn.Sequential(*(CausalResBlock(config, width, width) for _ in range(config.mid_blocks)))


class StridedDown(nn.Module):
    """3x3x3 convolution of stride 2 in space, and in time if asked: 1 + 2k frames are 1 + k."""

    def __init__(self, config: CausalResnetConfig, width: int, time: bool) -> None:
        super().__init__()
        self.conv = config.conv(width, width, stride=(2 if time else 1, 2, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class ShuffledUp(nn.Module):
    """3x3x3 convolution to 4 or 8 maps that are laid out in space, and in time if asked.

    Channels of the convolution are (frame, row, column, C), the block outside. Of the two frames
    that the first one becomes the second is left out, so that 1 + k frames are 1 + 2k.
    """

    def __init__(self, config: CausalResnetConfig, width: int, time: bool) -> None:
        super().__init__()
        self.time = 2 if time else 1
        self.conv = config.conv(width, 4 * self.time * width)

    def forward(self, x: Tensor) -> Tensor:
        y = rearrange(
            self.conv(x), "b (d y x c) t h w -> b c (t d) (h y) (w x)", d=self.time, y=2, x=2
        )
        return y.contiguous() if self.time == 1 else torch.cat([y[:, :, :1], y[:, :, 2:]], 2)
