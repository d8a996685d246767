"""Flow decoder on a U-Net: latents are enlarged to the sample's sides and seen beside the noisy
sample (epsilon-VAE, arXiv 2410.04081).

Letters: B batch, M values, D width of the values, C channels of the output space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.core.records import Condition, Noisy
from vistok.core.shapes import Grid, Shape, cells
from vistok.decoders.flow import Embedded, FlowDecoder, FlowDecoderConfig, FlowSamplingConfig
from vistok.layers.conv import ConvConfig
from vistok.layers.modulation import SinusoidsConfig, TimeEmbedding
from vistok.layers.unet import Start, UNet


class FlowUNetConfig(FlowDecoderConfig):
    kind: Literal["flow_unet"] = "flow_unet"
    conv: ConvConfig = ConvConfig(channel_mult=(1, 1, 2, 2, 4), blocks=2, attention=True)
    """Levels of the U-Net, level 0 has the sides of the output space."""
    time: SinusoidsConfig = SinusoidsConfig(channels=128)
    """Sinusoids of the time."""
    resize: Literal["nearest", "bilinear"] = "nearest"
    """How latents are enlarged to the sides of the output space."""
    start: Start = "zero"
    """zero: the last layer and the branches of all blocks start at zero (ADM); random: not."""

    @model_validator(mode="after")
    def _conditional(self) -> FlowUNetConfig:
        _check_guidance(self.sampling)
        if self.conv.space_levels is not None:
            raise InputError(
                f"conv.space_levels={self.conv.space_levels}: every level of a U-Net but the last "
                "halves the sides; leave it out"
            )
        return self

    @classmethod
    def tiny(cls) -> FlowUNetConfig:
        return cls(
            conv=ConvConfig.tiny(),
            time=SinusoidsConfig(channels=8),
            sampling=FlowSamplingConfig(steps=2),
        )


@register("decoder", FlowUNetConfig)
class FlowUNet(FlowDecoder):
    """Images only, of all latents, which lie row-major on a grid of the image's proportions."""

    def __init__(
        self, config: FlowUNetConfig, shape: Shape, grids: Sequence[Grid], dim: int
    ) -> None:
        """
        Args:
            shape: of the output space. grids: of the M values. dim: D, the width of a value.
        """
        super().__init__()
        self.config, self.shape = config, shape
        self.times, self.sampling = config.times, config.sampling
        config.conv.grid(shape)  # says so if the sides cannot be halved that often
        self.grid = map_of(grids, shape)
        width = 4 * config.conv.channels
        self.time = TimeEmbedding(width, **config.time.model_dump())
        self.unet = UNet(config.conv, shape.channels + dim, shape.channels, width, config.start)

    def embed(
        self, values: Tensor, present: Tensor | None, condition: Condition | None
    ) -> Embedded:
        """values [B, M, D] -> a map of the sides of the output space, [B, D, H, W]."""
        if present is not None:
            raise InputError(
                "decoder flow_unet needs all values; decode whole sequences, or use flow_vit"
            )
        cells = values.transpose(1, 2).unflatten(2, self.grid)
        return Embedded(F.interpolate(cells, self.shape.sides, mode=self.config.resize))

    def embed_nothing(self, values: Tensor, condition: Condition | None) -> Embedded:
        raise InputError(
            "decoder flow_unet has no unconditional prediction to be guided away from; expected "
            "sampling.guidance.scale=1"
        )

    def velocity(
        self, noisy: Noisy, values: Tensor, present: Tensor | None, condition: Condition | None
    ) -> Tensor:
        """values: the enlarged map."""
        kind = self.unet.conv_in.weight.dtype
        x = torch.cat([noisy.x.to(kind), values.to(kind)], dim=1)
        return self.unet(x, self.time(noisy.time))

    @property
    def last_layer(self) -> nn.Parameter:
        return self.unet.conv_out.weight


def _check_guidance(sampling: FlowSamplingConfig) -> None:
    """InputError unless sampling is without guidance, since there is nothing to guide with."""
    if sampling.guidance.scale != 1:
        raise InputError(
            f"sampling.guidance.scale={sampling.guidance.scale}: decoder flow_unet has no "
            "unconditional prediction; expected 1"
        )


def map_of(grids: Sequence[Grid], shape: Shape) -> Grid:
    """(h, w) of the values: their own grid of rows and columns, or else the map of the image's
    proportions that has as many cells. InputError if there is none."""
    if len(grids) == 1 and len(grids[0]) == 2:
        return grids[0]
    count = sum(map(cells, grids))
    for rows in range(1, count + 1):
        if count % rows == 0 and rows * shape.sides[1] == count // rows * shape.sides[0]:
            return rows, count // rows
    raise InputError(
        f"decoder flow_unet: {count} values are no map of the proportions of {shape.sides}; "
        "expected one grid of rows and columns, such as that of a cnn encoder"
    )
