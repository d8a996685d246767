"""Residual convolution blocks, and the pyramid that CNN encoders and decoders share.

The families descend from one network (DDPM's, then taming-transformers') and differ in a few
words, which are the options of `ConvConfig`.
Letters: B batch, C channels, h w positions of a map.
"""

from __future__ import annotations

import itertools
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import Config
from vistok.core.errors import InputError
from vistok.core.shapes import Grid, Shape
from vistok.layers.attention import Attention
from vistok.layers.dropout import Dropout
from vistok.layers.tiles import DeviationNorm, cut, join


class ConvConfig(Config):
    """A pyramid of levels; each halves the map of the one before it (or as many of them as
    `space_levels` says), level 0 is the image's."""

    channels: int = Field(default=128, ge=1, le=2**14)
    """Channels of level 0 before its multiplier."""
    channel_mult: tuple[Annotated[int, Field(ge=1, le=256)], ...] = Field(
        default=(1, 1, 2, 2, 4), min_length=1, max_length=12
    )
    """Level i has channels x channel_mult[i]; five levels divide the sides by 16."""
    space_levels: int | None = Field(default=None, ge=0, le=12)
    """Levels that change the sides of the map: the first of an encoder, each of which halves behind
    its blocks, and the last, smallest of a decoder, each of which doubles them; null = all but
    one. The others only have blocks (Cosmos, where wavelets divide the sides before)."""
    blocks: int = Field(default=2, ge=1, le=256)
    """Residual blocks of a level."""
    mid_blocks: int = Field(default=2, ge=0, le=256)
    """Residual blocks between encoder and latents, and between latents and decoder."""
    norm_groups: int = Field(default=32, ge=1, le=2**14)
    """Groups of the group norms; every level's channels are a multiple of it."""
    norm_eps: float = Field(default=1e-6, gt=0)
    norm: Literal["variance", "deviation"] = "variance"
    """Norms of residual blocks and before the last convolution divide by sqrt(variance + eps), as
    torch's group norm does, or by deviation + eps (GPSToken's decoder)."""
    bias: bool = True
    """Bias of the 3x3 and 1x1 convolutions inside blocks."""
    shortcut: Literal["input", "output"] = "input"
    """Shortcut of a block where the number of channels changes: a 1x1 convolution of
    its input, as everybody does, or of the branch itself, so that the input is lost: a slip of
    MaskGIT's JAX code that its released weights depend on."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of activations inside blocks that training drops, keyed by sample."""
    attention: bool = False
    """Self-attention after each block of the last level and between those of the middle
    (taming-transformers, LlamaGen)."""
    attention_levels: tuple[Annotated[int, Field(ge=0, lt=12)], ...] | None = None
    """With attention: the levels whose blocks it follows, 0 is the image's; null = the last; [] =
    in the middle alone."""

    @classmethod
    def tiny(cls) -> ConvConfig:
        return cls(channels=8, channel_mult=(1, 1, 2), blocks=1, mid_blocks=1, norm_groups=4)

    @model_validator(mode="after")
    def _divides(self) -> ConvConfig:
        for mult in self.channel_mult:
            if mult < 1 or self.channels * mult % self.norm_groups:
                raise InputError(
                    f"channels={self.channels} x channel_mult {mult} must be a multiple of "
                    f"norm_groups={self.norm_groups}"
                )
        levels = len(self.channel_mult)
        if self.attention_levels is not None and not self.attention:
            raise InputError(
                "attention_levels without attention: set attention=true, or leave it out"
            )
        if wrong := [level for level in self.attention_levels or () if level >= levels]:
            raise InputError(
                f"attention_levels: {wrong[0]} is no level; channel_mult has {levels}, from 0 on"
            )
        if self.space_levels is not None and self.space_levels > levels:
            raise InputError(
                f"space_levels={self.space_levels}: channel_mult has {levels} levels; expected "
                f"0..{levels}"
            )
        return self

    def attends(self, level: int) -> bool:
        """True if attention follows the blocks of this level."""
        levels = self.attention_levels
        return self.attention and level in ((len(self.widths) - 1,) if levels is None else levels)

    @property
    def ways(self) -> int:
        """How often the sides are halved, or doubled."""
        return len(self.channel_mult) - 1 if self.space_levels is None else self.space_levels

    def halves(self, level: int) -> bool:
        """True if this level of an encoder ends with half the sides."""
        return level < self.ways

    def doubles(self, level: int) -> bool:
        """True if this level of a decoder ends with twice the sides."""
        return level >= len(self.channel_mult) - self.ways

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.channels * mult for mult in self.channel_mult)

    def grid(self, shape: Shape) -> Grid:
        """(h, w) of the last level's map; ValueError if the sides cannot be halved that often."""
        if shape.is_clip:
            raise InputError(
                f"a cnn of 2D convolutions takes images, not clips of {shape.frames} frames; use "
                "kind: vit for clips"
            )
        stride = 2**self.ways
        if any(side % stride for side in shape.sides):
            why = f"{len(self.channel_mult)} levels of channel_mult want"
            if self.space_levels is not None:
                why = f"{self.space_levels} space_levels want"
            raise InputError(
                f"image_size={shape.sides} is not a multiple of {stride}, as the {why} it; use "
                "another size"
            )
        return tuple(side // stride for side in shape.sides)


class ConvNorm(nn.GroupNorm):
    """Group norm of a map [B, C, h, w], computed on contiguous channels.

    On CPUs torch's group norm of a channels-last tensor is slow and rounds differently.
    """

    def __init__(self, config: ConvConfig, channels: int, affine: bool = True) -> None:
        super().__init__(config.norm_groups, channels, eps=config.norm_eps, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.is_cuda else x.contiguous())


def map_norm(config: ConvConfig, channels: int) -> nn.Module:
    """The norm of residual blocks and before the last convolution."""
    if config.norm == "deviation":
        return DeviationNorm(config.norm_groups, channels, config.norm_eps)
    return ConvNorm(config, channels)


class ResBlock(nn.Module):
    """Norm, SiLU, 3x3 convolution, twice, added to the input; [B, C, h, w] -> [B, C', h, w]."""

    def __init__(self, config: ConvConfig, inside: int, out: int) -> None:
        super().__init__()
        self.from_input = config.shortcut == "input"
        self.norm1 = map_norm(config, inside)
        self.conv1 = nn.Conv2d(inside, out, 3, padding=1, bias=config.bias)
        self.norm2 = map_norm(config, out)
        self.dropout = Dropout(config.dropout)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=config.bias)
        self.shortcut = None
        if inside != out:
            seen = inside if self.from_input else out
            self.shortcut = nn.Conv2d(seen, out, 1, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(self.dropout(F.silu(self.norm2(y))))
        if self.shortcut is not None:
            x = self.shortcut(x if self.from_input else y)
        return x + y


class AttentionBlock(nn.Module):
    """Self-attention of all positions with one head, added to the input; [B, C, h, w] -> same."""

    tiles: int = 1  # positions of each of tiles x tiles parts see those of their part

    def __init__(self, config: ConvConfig, channels: int) -> None:
        super().__init__()
        self.norm = ConvNorm(config, channels)
        self.attention = Attention(channels, heads=1)

    def forward(self, x: Tensor) -> Tensor:
        if self.tiles > 1:
            x = cut(x, self.tiles)
        rows = self.attention(rearrange(self.norm(x), "b c h w -> b (h w) c"))
        y = x + rearrange(rows, "b (h w) c -> b c h w", h=x.shape[2])
        return join(y, self.tiles) if self.tiles > 1 else y


class Level(nn.Module):
    """Blocks of one resolution, and the way to the next one, if any.

    Args:
        attend: an attention block follows each residual block.
    """

    def __init__(
        self,
        config: ConvConfig,
        inside: int,
        out: int,
        way: nn.Module | None = None,
        attend: bool = False,
    ) -> None:
        super().__init__()
        widths = [inside] + [out] * config.blocks
        self.blocks = nn.ModuleList(ResBlock(config, a, b) for a, b in itertools.pairwise(widths))
        self.attention = nn.ModuleList(
            AttentionBlock(config, out) if attend else nn.Identity() for _ in self.blocks
        )
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        for block, attention in zip(self.blocks, self.attention, strict=True):
            x = attention(block(x))
        return x if self.way is None else self.way(x)


def middle(config: ConvConfig) -> nn.Sequential:
    """Blocks of the last level's width, with attention between them if the config has it."""
    width, layers = config.widths[-1], []
    for number in range(config.mid_blocks):
        if number and config.attention:
            layers.append(AttentionBlock(config, width))
        layers.append(ResBlock(config, width, width))
    return nn.Sequential(*layers)


class Downsample(nn.Module):
    """3x3 convolution of stride 2: [B, C, h, w] -> [B, C, h/2, w/2].

    Zeros lie right and bottom (taming-transformers), or all around (`centered`, MAGVIT-v2).
    """

    def __init__(self, channels: int, centered: bool = False) -> None:
        super().__init__()
        self.centered = centered
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1 if centered else 0)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x if self.centered else F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Each position four times, then a 3x3 convolution: [B, C, h, w] -> [B, C, 2h, 2w]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class DepthToSpace(nn.Module):
    """3x3 convolution to four maps, one for each position of a 2x2 block: sides are doubled.

    Channels of the convolution are (row, column, C), the block outside (MAGVIT-v2's order, which
    is not that of torch's pixel_shuffle).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4 * channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return rearrange(self.conv(x), "b (y x c) h w -> b c (h y) (w x)", y=2, x=2).contiguous()


class AdaptiveNorm(nn.Module):
    """Group norm whose scale and shift are read from another map (MAGVIT-v2, arXiv 2310.05737).

    scale = linear(sqrt(var z + eps)), shift = linear(mean z), over the positions of z, the variance
    unbiased; scale * norm(x) + shift, without a 1 + scale.
    """

    def __init__(self, config: ConvConfig, channels: int, style: int) -> None:
        """
        Args:
            style: channels of z.
        """
        super().__init__()
        self.norm = ConvNorm(config, channels, affine=False)
        self.scale, self.shift = nn.Linear(style, channels), nn.Linear(style, channels)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """x [B, C, h, w], z [B, style, h', w'] of more than one position -> [B, C, h, w]; both may
        have an axis of time."""
        spread, mean = torch.var_mean(z.float().flatten(2), dim=-1)
        scale = self.scale((spread + self.norm.eps).sqrt())
        wide = (..., *(None,) * (x.ndim - 2))
        return scale[wide] * self.norm(x) + self.shift(mean)[wide]


class Blur(nn.Module):
    """A binomial low-pass filter of stride 2, each channel alone: [B, C, h, w] -> half the sides.

    Zeros around the map as TensorFlow's SAME has them: the odd one goes right and bottom.
    """

    def __init__(self, size: int = 4, padded_for: int | None = None) -> None:
        """
        Args:
            size: taps. padded_for: size that the padding is computed for; None = `size`.
        """
        super().__init__()
        self.padded_for = size if padded_for is None else padded_for
        line = torch.ones(1)
        for _ in range(size - 1):
            line = F.pad(line, (1, 0)) + F.pad(line, (0, 1))  # a row of Pascal's triangle
        kernel = line[:, None] * line
        self.register_buffer("kernel", (kernel / kernel.sum())[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        size, channels = self.kernel.shape[-1], x.shape[1]
        pads = []
        for side in (x.shape[-1], x.shape[-2]):
            pad = max((-(-side // 2) - 1) * 2 + self.padded_for - side, 0)
            pads += [pad // 2, pad - pad // 2]
        kernel = self.kernel.to(x.dtype).expand(channels, 1, size, size)
        return F.conv2d(F.pad(x, pads), kernel, stride=2, groups=channels)
