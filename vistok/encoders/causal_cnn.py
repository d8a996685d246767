"""Causal encoder of clips: factorized convolutions that look back only (Cosmos, arXiv 2501.03575).

1 + k x stride frames become 1 + k latent frames, each a block of tokens; the first is that of the
first frame alone, so that an image is a clip of one frame.
Letters: B batch, C channels, t h w latent frames and positions, D width of the quantizer's input.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.core.records import Condition, Latents
from vistok.core.shapes import Grid, Shape, latent_frames
from vistok.encoders.base import Encoder
from vistok.layers.causal_conv import Stream
from vistok.layers.causal_net import (
    CausalLevel,
    CausalNetConfig,
    FrameNorm,
    HybridDownsample,
    causal_middle,
    factorized,
    init_weights,
)


class CausalCNNEncoderConfig(Config):
    kind: Literal["causal_cnn"] = "causal_cnn"
    net: CausalNetConfig = CausalNetConfig()
    z_channels: int = Field(default=16, ge=1, le=2**14)
    """Channels of the last 3D convolution, before the linear layer to the quantizer's width; the
    tap `z` lies between them."""

    @classmethod
    def tiny(cls) -> CausalCNNEncoderConfig:
        return cls(net=CausalNetConfig.tiny(), z_channels=8)


def latent_grid(net: CausalNetConfig, shape: Shape) -> Grid:
    """(t, h, w) of the latents of a shape, t = 1 of images; InputError where it is not halved."""
    net.check_levels()
    t, sides = shape.frames or 1, shape.image_size
    space, time = 2**net.space_levels, 2**net.time_levels
    if any(side % space for side in sides):
        raise InputError(
            f"frames of {tuple(sides)} positions cannot be halved space_levels={net.space_levels} "
            f"times; use sides that are multiples of {space}"
        )
    count = latent_frames(t, time, f"{t} frames reach the causal_cnn, which")
    return (count, sides[0] // space, sides[1] // space)


@register("encoder", CausalCNNEncoderConfig)
class CausalCNNEncoder(Encoder):
    def __init__(self, config: CausalCNNEncoderConfig, shape: Shape, dim: int) -> None:
        super().__init__()
        self.config = config
        net, widths = config.net, config.net.widths
        frames, *block = latent_grid(net, shape)
        self.grids = (tuple(block),) * frames
        self.frame_stride = 2**net.time_levels if shape.is_clip else None
        self.causal = shape.is_clip
        self.conv_in = factorized(shape.channels, net.channels)
        inputs, last = (net.channels, *widths), len(widths) - 1
        self.levels = nn.ModuleList()
        for i, width in enumerate(widths):
            way = None
            if i < last:
                way = HybridDownsample(width, i < net.space_levels, i < net.time_levels)
            level = CausalLevel(net, inputs[i], width, net.blocks, net.attends(i), way)
            self.levels.append(level)
        self.mid = causal_middle(net)
        self.norm = FrameNorm(net, widths[-1])
        self.conv_out = factorized(widths[-1], config.z_channels)
        self.proj = nn.Linear(config.z_channels, dim)
        init_weights(self, net)

    def forward(
        self, x: Tensor, condition: Condition | None = None, stream: Stream | None = None
    ) -> Latents:
        """x [B, C, T, H, W], T of any count that the levels halve -> latents [B, t*h*w, D].

        Images [B, C, H, W] are clips of one frame.

        Args:
            stream: of a clip in pieces: x are its next frames.
        """
        y = self.conv_in(x if x.ndim == 5 else x[:, :, None], stream)
        for level in self.levels:
            y = level(y, stream)
        y = F.silu(self.norm(self.mid(y, stream)))
        z = self.conv_out(y, stream)
        grids = (tuple(z.shape[3:]),) * z.shape[2]
        rows = rearrange(z, "b d t h w -> b (t h w) d")
        return Latents(self.proj(rows).float(), grids, {"z": rows})
