"""Causal encoder of clips: residual 3D convolutions, as of MAGVIT-v2 (arXiv 2310.05737).

1 + k x stride frames become 1 + k latent frames, for any k, each a block of tokens. An image is a
clip of one frame. Group norms average over time: latents of a clip depend on all of its frames, so
that it cannot come in pieces.
Letters: B batch, C channels, t h w latent frames and positions, D width of the quantizer's input.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.records import Condition, Latents
from vistok.core.shapes import Shape
from vistok.encoders.base import Encoder
from vistok.layers.causal_resnet import (
    CausalResLevel,
    CausalResnetConfig,
    StridedDown,
    residual_middle,
)
from vistok.layers.conv import ConvNorm


class CausalResnetEncoderConfig(Config):
    kind: Literal["causal_resnet"] = "causal_resnet"
    net: CausalResnetConfig = CausalResnetConfig()
    bias_in: bool = False
    """Bias of the first convolution; Open-MAGVIT2's has none."""
    kernel_out: Literal[1, 3] = 1
    """Side of the last convolution, to the quantizer's width."""

    @classmethod
    def tiny(cls) -> CausalResnetEncoderConfig:
        return cls(net=CausalResnetConfig.tiny())


@register("encoder", CausalResnetEncoderConfig)
class CausalResnetEncoder(Encoder):
    def __init__(self, config: CausalResnetEncoderConfig, shape: Shape, dim: int) -> None:
        """
        Args:
            shape: of the input space; frames are 1 + k x stride, sides multiples of 2 ** ways.
            dim: D, the width of a latent.
        """
        super().__init__()
        self.config = config
        net, widths = config.net, config.net.widths
        self.frame_stride = net.frame_stride if shape.is_clip else None
        frames, *block = net.grid(shape)
        self.grids = (tuple(block),) * frames
        self.conv_in = net.conv(shape.channels, net.channels, bias=config.bias_in)
        ways = [StridedDown(net, a, b) for a, b in zip(widths[:-1], net.halve_time, strict=True)]
        inputs = (net.channels, *widths[:-1])
        self.levels = nn.ModuleList(
            CausalResLevel(net, inside, out, way)
            for inside, out, way in zip(inputs, widths, (*ways, None), strict=True)
        )
        self.mid = residual_middle(net)
        self.norm = ConvNorm(net, widths[-1])
        self.conv_out = net.conv(widths[-1], dim, config.kernel_out)

    def forward(self, x: Tensor, condition: Condition | None = None) -> Latents:
        """x [B, C, T, H, W], or images [B, C, H, W] -> latents [B, t*h*w, D], frame by frame."""
        y = self.conv_in(x if x.ndim == 5 else x[:, :, None])
        for level in self.levels:
            y = level(y)
        z = self.conv_out(F.silu(self.norm(self.mid(y))))
        grids = (tuple(z.shape[3:]),) * z.shape[2]
        return Latents(rearrange(z, "b d t h w -> b (t h w) d").float(), grids)
