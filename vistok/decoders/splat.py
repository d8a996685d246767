"""Splat decoder: tokens that are 2D Gaussians with features, summed to a map that a CNN decodes
(GPSToken, arXiv 2509.01109).

A token's first five numbers are sigma_x, sigma_y, rho, x, y (`layers.splat`); any number of them
makes an image. The encoder gives them (GPSToken), or a linear layer makes them of a value.
Letters: B batch, k tiles of a side, n tokens of a tile, D width of a value, c features, h w
positions of the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.core.records import Condition, Decoded, Noisy
from vistok.core.shapes import Grid, Shape
from vistok.decoders.base import Decoder
from vistok.decoders.cnn import CNNDecoder, CNNDecoderConfig
from vistok.layers.conv import AttentionBlock
from vistok.layers.splat import GEOMETRY, placed, render
from vistok.layers.tiles import DeviationNorm, join


class SplatDecoderConfig(Config):
    kind: Literal["splat"] = "splat"
    cnn: CNNDecoderConfig = CNNDecoderConfig()
    """The network from the map to the output space; its levels say how large the map is."""
    features: int | None = Field(default=16, ge=1, le=2**14)
    """c, where a linear layer makes a Gaussian and its features of a value; null = a value is a
    Gaussian and its features (encoder regions with gaussians=true)."""
    reach: float = Field(default=3.0, gt=0, le=1000)
    """A Gaussian ends so many sigmas from its center, along each axis."""
    tiles: int = Field(default=1, ge=1, le=64)
    """k: the tokens are those of k x k tiles, as many as the encoder has."""
    merge: bool = True
    """The Gaussians of all tiles are summed to one map, which hides the tiles' borders; the norms'
    statistics (cnn.conv.norm=deviation) and the attention in the middle stay those of each tile.
    false: every tile is decoded alone (GPSToken-L256)."""
    tile_order: Literal["sample", "batch"] = "sample"
    """batch: places of the tiles are counted over the tiles of the whole batch, as the release's
    code does, which is right for one image at a time alone."""

    @classmethod
    def tiny(cls) -> SplatDecoderConfig:
        return cls(cnn=CNNDecoderConfig.tiny())


@register("decoder", SplatDecoderConfig)
class SplatDecoder(Decoder):
    """Tokens are a set that covers the image: it serves no prefix, but any number of tokens."""

    any_count = True

    def __init__(
        self, config: SplatDecoderConfig, shape: Shape, grids: Sequence[Grid], dim: int
    ) -> None:
        """
        Args:
            shape: of the output space. grids: of the values, in all k^2 n. dim: D.
        """
        super().__init__()
        self.config, tiles = config, config.tiles
        own = dim - GEOMETRY if config.features is None else config.features
        if own < 1:
            raise InputError(
                f"decoder.features=null: values of {dim} numbers, the first {GEOMETRY} of them a "
                f"Gaussian; expected {GEOMETRY + 1} or more, or a number of features"
            )
        if config.cnn.z_channels is not None:
            raise InputError(
                f"decoder.cnn.z_channels={config.cnn.z_channels}: the map has the tokens' features "
                "as channels; leave it out"
            )
        if any(side % tiles for side in shape.sides):
            raise InputError(f"image_size={shape.sides} is not a multiple of decoder.tiles={tiles}")
        if not config.merge:
            shape = Shape(shape.channels, tuple(side // tiles for side in shape.sides))
        self.sides = config.cnn.conv.grid(shape)
        self.cnn = CNNDecoder(config.cnn, shape, (self.sides,), own)
        self.embed = None if config.features is None else nn.Linear(dim, GEOMETRY + own)
        if config.merge:
            # The last norm, before the last convolution, is that of the whole map in the original.
            for part in (self.cnn.mid, self.cnn.levels):
                for module in part.modules():
                    if isinstance(module, DeviationNorm):
                        module.tiles = tiles
            for module in self.cnn.mid.modules():
                if isinstance(module, AttentionBlock):
                    module.tiles = tiles

    def forward(
        self,
        values: Tensor,
        present: Tensor | None = None,
        condition: Condition | None = None,
        noisy: Noisy | None = None,
    ) -> Decoded:
        """values [B, k^2 n, D], tile by tile -> [B, C, H, W] of the output space.

        Args:
            present: [B, k^2 n] bool, tokens that are summed; None = all.
        """
        config, parts = self.config, self.config.tiles**2
        if values.shape[1] % parts:
            raise InputError(f"{values.shape[1]} tokens of {parts} tiles; expected a multiple")
        tokens = values if self.embed is None else self.embedded(values)
        if config.merge:
            return self.cnn.from_map(self.render(self.merged(tokens), present))
        apart = lambda table: table.unflatten(1, (parts, -1)).flatten(0, 1)
        maps = self.render(apart(tokens), None if present is None else apart(present))
        found = join(self.cnn.from_map(maps).estimate, config.tiles)
        return Decoded(found, found)

    def embedded(self, values: Tensor) -> Tensor:
        """Values [B, k^2 n, D] -> tokens [B, k^2 n, 5 + c]: sigmas in 0..1, rho, x and y in
        -1..1."""
        raw = self.embed(values.to(self.embed.weight.dtype)).float()
        sigmas, others = raw[..., :2].sigmoid(), raw[..., 2:GEOMETRY].tanh()
        return torch.cat([sigmas, others, raw[..., GEOMETRY:]], -1)

    def merged(self, tokens: Tensor) -> Tensor:
        """Tokens [B, k^2 n, 5 + c] in the coordinates of their tiles -> in those of the image."""
        parts, places = self.config.tiles**2, None
        if self.config.tile_order == "batch":
            numbers = torch.arange(len(tokens) * parts, device=tokens.device)
            places = numbers.view(-1, parts) // len(tokens)
        return placed(tokens.float().unflatten(1, (parts, -1)), self.config.tiles, places)

    def render(self, tokens: Tensor, present: Tensor | None = None) -> Tensor:
        """Tokens [B, n, 5 + c] -> map [B, c, h, w]."""
        maps = render(tokens, self.sides, self.config.reach, present)
        return maps.to(self.cnn.conv_in.weight.dtype)

    @property
    def last_layer(self) -> nn.Parameter:
        return self.cnn.last_layer
