"""Causal decoder of clips, the mirror of the causal_resnet encoder (MAGVIT-v2, arXiv 2310.05737).

Letters: B batch, t h w latent frames and positions, D width of the values, C channels.
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
from vistok.layers.causal_resnet import (
    CausalResLevel,
    CausalResnetConfig,
    ShuffledUp,
    residual_middle,
)
from vistok.layers.conv import AdaptiveNorm, ConvNorm


class CausalResnetDecoderConfig(Config):
    kind: Literal["causal_resnet"] = "causal_resnet"
    net: CausalResnetConfig = CausalResnetConfig()
    adaptive_norm: bool = True
    """Every level begins with a group norm that the spread and mean of the values, over space and
    time, scale and shift."""

    @classmethod
    def tiny(cls) -> CausalResnetDecoderConfig:
        return cls(net=CausalResnetConfig.tiny())


@register("decoder", CausalResnetDecoderConfig)
class CausalResnetDecoder(Decoder):
    """Its norms average over the whole clip: it serves no prefix, but any number of frames."""

    def __init__(
        self, config: CausalResnetDecoderConfig, shape: Shape, grids: Sequence[Grid], dim: int
    ) -> None:
        """
        Args:
            shape: of the output space. grids: of the values. dim: D, the width of a value.
        Raises InputError for another number of values.
        """
        super().__init__()
        self.config, self.clips = config, shape.is_clip
        self.any_blocks = shape.is_clip
        net, widths = config.net, config.net.widths
        self.grid = net.grid(shape)
        if sum(map(cells, grids)) != cells(self.grid):
            raise InputError(
                f"decoder.net: {len(widths)} levels make {shape.sides} of a grid of {self.grid}, "
                f"but there are {sum(map(cells, grids))} values; give encoder and decoder the same "
                "levels"
            )
        self._check_spread(self.grid)
        self.conv_in = net.conv(dim, widths[-1])
        self.mid = residual_middle(net)
        # Level 0 is that of the clip, as in the encoder: the last to run.
        ways = [ShuffledUp(net, a, b) for a, b in zip(widths[1:], net.halve_time, strict=True)]
        inputs = (*widths[1:], widths[-1])
        self.levels = nn.ModuleList(
            CausalResLevel(net, inside, out, way)
            for inside, out, way in zip(inputs, widths, (None, *ways), strict=True)
        )
        self.adaptive = nn.ModuleList(
            AdaptiveNorm(net, inside, dim) for inside in inputs if config.adaptive_norm
        )
        self.norm = ConvNorm(net, widths[0])
        self.conv_out = net.conv(widths[0], shape.channels)

    def forward(
        self,
        values: Tensor,
        present: Tensor | None = None,
        condition: Condition | None = None,
        noisy: Noisy | None = None,
    ) -> Decoded:
        """values [B, t*h*w, D], frame by frame -> [B, C, T, H, W] of the output space."""
        if present is not None:
            raise InputError(
                "a causal_resnet decoder needs every latent: train without a length regularizer"
            )
        values = values.to(self.conv_in.weight.dtype)
        _, h, w = self.grid
        # As it lies it would be channels-last.
        z = rearrange(values, "b (t h w) d -> b d t h w", h=h, w=w).contiguous()
        self._check_spread(tuple(z.shape[2:]))
        y = self.mid(self.conv_in(z))
        for i in reversed(range(len(self.levels))):
            if self.config.adaptive_norm:
                y = self.adaptive[i](y, z)
            y = self.levels[i](y)
        y = self.conv_out(F.silu(self.norm(y))).float()
        y = y if self.clips else y[:, :, 0]
        return Decoded(y, y)

    def _check_spread(self, grid: Grid) -> None:
        """InputError for a map of values without a spread."""
        if self.config.adaptive_norm and cells(grid) == 1:
            raise InputError(
                "decoder.adaptive_norm=true takes the spread of a map over its positions, and a "
                f"map of {grid} has one; use more frames, fewer levels or adaptive_norm=false"
            )

    @property
    def last_layer(self) -> nn.Parameter:
        return self.conv_out.weight
