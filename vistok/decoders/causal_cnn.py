"""Causal decoder of clips, the mirror of the causal_cnn encoder (Cosmos, arXiv 2501.03575).

Frames of a block depend on it and the blocks before, so that a clip can be shown while its tokens
come in. Blocks that are missing at the end are decoded as copies of the last one present: their
frames stand still, and those of the others are what a shorter clip gives.
Letters: B batch, t h w latent frames and positions, D width of the values, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
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
from vistok.layers.causal_conv import Stream
from vistok.layers.causal_net import (
    CausalLevel,
    CausalNetConfig,
    FrameNorm,
    HybridUpsample,
    causal_middle,
    factorized,
    init_weights,
)


class CausalCNNDecoderConfig(Config):
    kind: Literal["causal_cnn"] = "causal_cnn"
    net: CausalNetConfig = CausalNetConfig()
    z_channels: int = Field(default=16, ge=1, le=2**14)
    """Channels of the linear layer from the quantizer's width."""
    time_first: bool = False
    """Way to the second smallest level doubles time already (Cosmos's legacy_mode); without, time
    is doubled one level later, so that frames of twice the side come first."""

    @classmethod
    def tiny(cls) -> CausalCNNDecoderConfig:
        return cls(net=CausalNetConfig.tiny(), z_channels=8)

    def ways(self) -> list[tuple[bool, bool]]:
        """(space, time) that each way up doubles, from the smallest level on."""
        n_s, n_t = self.net.space_levels, self.net.time_levels
        found = []
        for r in range(len(self.net.channel_mult) - 1):
            time = r < n_t if self.time_first else 0 < r < n_t + 1
            found.append((time or (r < n_s and n_s > n_t), time))
        return found


@register("decoder", CausalCNNDecoderConfig)
class CausalCNNDecoder(Decoder):
    prefix = "block"

    def __init__(
        self, config: CausalCNNDecoderConfig, shape: Shape, grids: Sequence[Grid], dim: int
    ) -> None:
        super().__init__()
        self.config = config
        net, widths = config.net, config.net.widths
        ways = config.ways()
        space, time = (sum(way[i] for way in ways) for i in (0, 1))
        if (space, time) != (net.space_levels, net.time_levels):
            raise InputError(
                f"decoder: these levels double space {space} and time {time} times, but "
                f"space_levels={net.space_levels} and time_levels={net.time_levels}; use more "
                "levels of channel_mult, or time_first=true"
            )
        self.clip = self.causal = shape.is_clip
        self.block: Grid = tuple(side // 2**space for side in shape.image_size)
        count = 1 + ((shape.frames or 1) - 1) // 2**time
        if sum(map(cells, grids)) != count * cells(self.block):
            raise InputError(
                f"decoder: a causal_cnn makes {shape} of {count} x {self.block} values, but there "
                f"are {sum(map(cells, grids))}; give encoder and decoder the same levels"
            )
        self.embed = nn.Linear(dim, config.z_channels)
        self.conv_in = factorized(config.z_channels, widths[-1])
        self.mid = causal_middle(net)
        # Level 0 is the largest, as in the encoder: the last to run.
        inputs = (*widths[1:], widths[-1])
        levels = []
        for i, width in enumerate(widths):
            way = HybridUpsample(width, *ways[len(widths) - 1 - i]) if i else None
            attends = net.attends(i, decoder=True)
            levels.append(CausalLevel(net, inputs[i], width, net.blocks + 1, attends, way))
        self.levels = nn.ModuleList(levels)
        self.norm = FrameNorm(net, widths[0])
        self.conv_out = factorized(widths[0], shape.channels)
        init_weights(self, net, self.conv_out[-1])

    def forward(
        self,
        values: Tensor,
        present: Tensor | None = None,
        condition: Condition | None = None,
        noisy: Noisy | None = None,
        stream: Stream | None = None,
    ) -> Decoded:
        """values [B, t*h*w, D] of any number t of blocks -> [B, C, T, H, W].

        Args:
            present: [B, M], whole blocks from the first on. stream: of a clip in pieces: values are
                those of its next blocks.
        """
        values = values.to(self.embed.weight.dtype)
        if present is not None:
            values = self._held(values, present)
        h, w = self.block
        z = rearrange(self.embed(values), "b (t h w) d -> b d t h w", h=h, w=w).contiguous()
        y = self.mid(self.conv_in(z, stream), stream)
        for level in reversed(self.levels):
            y = level(y, stream)
        y = self.conv_out(F.silu(self.norm(y)), stream).float()
        y = y if self.clip else y[:, :, 0]
        return Decoded(y, y)

    def _held(self, values: Tensor, present: Tensor) -> Tensor:
        """Values with copies of the last block present in the place of those that are missing."""
        size = cells(self.block)
        blocks = (values * present[..., None].to(values)).unflatten(1, (-1, size))
        count = present.unflatten(1, (-1, size)).any(-1).sum(1).clamp(min=1)  # [B]
        place = torch.arange(blocks.shape[1], device=values.device)
        shown = torch.minimum(place[None], count[:, None] - 1)[..., None, None]
        return blocks.gather(1, shown.expand_as(blocks)).flatten(1, 2)

    @property
    def last_layer(self) -> nn.Parameter:
        return self.conv_out[-1].weight
