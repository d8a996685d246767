"""CNN decoder: a grid of code vectors through a pyramid of residual blocks, up to the pixels.

With `channel_mult: [1, 1, 2, 2, 4]` this is the f16 decoder of MaskGIT-VQGAN (arXiv 2202.04200),
which also is the pixel decoder of two-stage TiTok and One-D-Piece; with attention and a map of its
own width behind the quantizer that of LlamaGen (arXiv 2406.06525); with adaptive norms and depth to
space Open-MAGVIT2's (arXiv 2409.04410) and the pixel half of GigaTok's and ReTok's (arXiv
2504.08736, 2601.01535).
Letters: B batch, h w positions, D width of the values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.core.records import Condition, Decoded, Noisy
from vistok.core.shapes import Grid, Shape, cells
from vistok.decoders.base import Decoder
from vistok.layers.conv import (
    AdaptiveNorm,
    ConvConfig,
    DepthToSpace,
    Level,
    Upsample,
    map_norm,
    middle,
)


class CNNDecoderConfig(Config):
    kind: Literal["cnn"] = "cnn"
    conv: ConvConfig = ConvConfig()
    upsample: Literal["conv", "nearest", "depth_to_space"] = "conv"
    """Way to a level of twice the sides: each position four times and a 3x3 convolution, without
    one, or a convolution to four times the channels that are laid out in space (GigaTok)."""
    z_channels: int | None = Field(default=None, ge=1, le=2**14)
    """Channels of the first map, of a 1x1 convolution from the quantizer's width (LlamaGen's
    post_quant_conv); null = the values are that map."""
    kernel_embed: Literal[1, 3, 5, 7] = 1
    """Side of that convolution from the quantizer's width; 3 in VAR."""
    adaptive_norm: bool = False
    """Every level begins with a group norm that the spread and mean of the first map scale and
    shift (MAGVIT-v2's; GigaTok's AdaptiveGroupNorm)."""

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
            shape: of the output space; sides are multiples of 2 ** `conv.ways`.
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
        if config.adaptive_norm and cells(self.grid) == 1:
            raise InputError(
                "decoder.adaptive_norm=true takes the spread of a map over its positions, and a "
                f"map of {self.grid} has one; use fewer levels or adaptive_norm=false"
            )
        first = config.z_channels or dim
        self.embed, kernel = None, config.kernel_embed
        if config.z_channels is not None and kernel == 1:
            self.embed = nn.Linear(dim, first)
        elif config.z_channels is not None:
            self.embed = nn.Conv2d(dim, first, kernel, padding=kernel // 2)
        self.conv_in = nn.Conv2d(first, widths[-1], 3, padding=1)
        self.mid = middle(conv)
        # Level 0 is that of the image, as in the encoder: the last to run.
        double = {
            "conv": Upsample,
            "nearest": lambda width: nn.UpsamplingNearest2d(scale_factor=2),
            "depth_to_space": DepthToSpace,
        }[config.upsample]
        ways = [double(width) if conv.doubles(i) else None for i, width in enumerate(widths)]
        inputs = (*widths[1:], widths[-1])
        self.levels = nn.ModuleList(
            Level(conv, inside, out, way, attend=conv.attends(i))
            for i, (inside, out, way) in enumerate(zip(inputs, widths, ways, strict=True))
        )
        self.adaptive = nn.ModuleList(
            AdaptiveNorm(conv, inside, first) for inside in inputs if config.adaptive_norm
        )
        self.norm = map_norm(conv, widths[0])
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
        values = values.to(self.conv_in.weight.dtype)
        if self.embed is not None and self.config.kernel_embed == 1:
            values = self.embed(values)
        h, w = self.grid
        # As it lies it would be channels-last.
        z = rearrange(values, "b (h w) d -> b d h w", h=h, w=w).contiguous()
        if self.embed is not None and self.config.kernel_embed > 1:
            z = self.embed(z)
        return self.from_map(z)

    def from_map(self, z: Tensor) -> Decoded:
        """The first map [B, C', h, w], contiguous -> [B, C, H, W] of the output space."""
        y = self.mid(self.conv_in(z))
        features = {"grid": rearrange(y, "b c h w -> b (h w) c")}
        for i in reversed(range(len(self.levels))):
            if self.config.adaptive_norm:
                y = self.adaptive[i](y, z)
            y = self.levels[i](y)
        y = self.conv_out(F.silu(self.norm(y))).float()
        return Decoded(y, y, features)

    @property
    def last_layer(self) -> nn.Parameter:
        return self.conv_out.weight
