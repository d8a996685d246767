"""Two decoders of one sequence of values: the image of the pixel channels, and features of the
semantic ones (TokenFlow, arXiv 2412.03069).

Features are what a loss compares with those of the network that the semantic branch began as
(`alignment` of the tap `semantic`); nothing else reads them. Their decoder is a small transformer
over the grid with a class token that is dropped, as of BEiT v2 (arXiv 2208.06366).
Letters: B batch, M values on an h x w grid, D width of a value, C channels, W width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from vistok.config import Config, PartOf
from vistok.config.registry import build, register
from vistok.core.errors import InputError
from vistok.core.records import Condition, Decoded, Noisy
from vistok.core.shapes import Grid, Shape, cells
from vistok.decoders.base import Decoder
from vistok.decoders.cnn import CNNDecoderConfig
from vistok.layers.resize import resize
from vistok.layers.transformer import Transformer, TransformerConfig, init_weights
from vistok.layers.vision_tower import resized_table, tanh_head


class SemanticDecoderConfig(Config):
    """The decoder of features."""

    dim: int | None = Field(default=None, ge=1, le=2**14)
    """Channels of a value that it reads: the first so many; null = half of them."""
    out: int = Field(default=512, ge=1, le=2**14)
    """Channels of a feature, those of the network that it is compared with."""
    positions: int | None = Field(default=None, ge=1, le=2**10)
    """Cells of a side of the learned position table, resized where the grid is another; null = it
    is the grid's."""
    transformer: TransformerConfig = TransformerConfig(
        **{"width": 768, "depth": 3, "heads": 12, "init": "trunc_normal"}
    )


class BranchesDecoderConfig(Config):
    kind: Literal["branches"] = "branches"
    semantic: SemanticDecoderConfig = SemanticDecoderConfig()
    pixels: Annotated[Any, PartOf("decoder")] = CNNDecoderConfig()
    """The decoder of the other channels."""
    image_size: int | None = Field(default=None, ge=1, le=2**14)
    """Side of the square that it makes, which is then resized to the space's (bicubic, without
    antialiasing); null = the space's own."""

    @classmethod
    def tiny(cls) -> BranchesDecoderConfig:
        semantic = SemanticDecoderConfig(dim=1, out=6, transformer=TransformerConfig.tiny())
        return cls(semantic=semantic, pixels=CNNDecoderConfig.tiny())


@register("decoder", BranchesDecoderConfig)
class BranchesDecoder(Decoder):
    """It needs the whole grid; prefixes are those that a quantizer with scales serves."""

    def __init__(
        self, config: BranchesDecoderConfig, shape: Shape, grids: Sequence[Grid], dim: int
    ) -> None:
        """
        Args:
            shape: of the output space, images. grids: of the values, one of two sides. dim: D.
        """
        super().__init__()
        self.config, self.shape = config, shape
        own = config.semantic
        grid, count = tuple(grids[0]), sum(map(cells, grids))
        if len(grids) == 1 and len(grid) == 1:  # a list is taken as a square, row by row
            grid = (math.isqrt(count),) * 2
        if len(grids) != 1 or len(grid) != 2 or cells(grid) != count:
            raise InputError(
                f"decoder kind=branches reads values on one grid (h, w), not on {tuple(grids)}; "
                "use an encoder and a quantizer that keep the grid"
            )
        first = dim // 2 if own.dim is None else own.dim
        if not 1 <= first < dim:
            raise InputError(
                f"decoder.semantic.dim={first} of values of {dim} channels; expected fewer, for "
                "the pixels read the others"
            )
        side = config.image_size
        inside = shape if side is None else Shape(shape.channels, (side, side))
        self.semantic = SemanticDecoder(own, grid, first)
        self.pixels = build(config.pixels, inside, grids, dim - first)
        if self.pixels.sampling is not None:
            raise InputError(
                f"decoder.pixels.kind={config.pixels.kind} samples; expected a decoder that does "
                "not, such as cnn or vit"
            )

    def forward(
        self,
        values: Tensor,
        present: Tensor | None = None,
        condition: Condition | None = None,
        noisy: Noisy | None = None,
    ) -> Decoded:
        """values [B, h*w, D] -> [B, C, H, W]; taps: `semantic` [B, h*w, out], and the others'."""
        if present is not None:
            raise InputError(
                "a decoder of branches needs every value: drop scales instead (level_dropout)"
            )
        width = self.semantic.dim
        features = {"semantic": self.semantic(values[..., :width])}
        decoded = self.pixels(values[..., width:], None, condition)
        image = resize(decoded.estimate, self.shape.image_size, "bicubic", antialias=False)
        return Decoded(image, image, decoded.features | features)

    @property
    def last_layer(self) -> nn.Parameter:
        return self.pixels.last_layer


class SemanticDecoder(nn.Module):
    """Values [B, h*w, D] -> features [B, h*w, out]."""

    def __init__(self, config: SemanticDecoderConfig, grid: Grid, dim: int) -> None:
        super().__init__()
        self.grid, self.dim, inner = tuple(grid), dim, config.transformer
        if config.positions is None and grid[0] != grid[1]:
            raise InputError(f"decoder.semantic: its positions are of a square, not of {grid}")
        side = grid[0] if config.positions is None else config.positions
        self.embed = nn.Linear(dim, inner.width)
        self.class_token = nn.Parameter(torch.empty(inner.width))
        self.table = nn.Parameter(torch.empty(1 + side**2, inner.width))
        self.transformer = Transformer(inner)
        init_weights(self, inner)
        for tensor in (self.class_token, self.table):
            nn.init.trunc_normal_(tensor, std=0.02)
        self.head = tanh_head(inner.width, config.out)

    def forward(self, values: Tensor) -> Tensor:
        rows = self.embed(values.to(self.embed.weight.dtype))
        token = self.class_token.to(rows.dtype).expand(len(rows), 1, -1)
        table = resized_table(self.table, self.grid, lead=1)
        rows = torch.cat([token, rows], dim=1) + table.to(rows.dtype)
        return self.head(self.transformer(rows, only=slice(1, None))).float()
