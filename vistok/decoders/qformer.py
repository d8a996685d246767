"""Q-Former and CNN decoder: 2D queries read the 1D values, and a CNN makes the pixels of their map
(GigaTok, arXiv 2504.08736; ReTok, 2601.01535).

A prefix is decoded as it is: values that are missing are not in the memory, and nothing stands in
for them. Letters: B batch, M values, D their width, h w queries on the map's grid, W their width,
z channels of the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from einops import rearrange
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.core.records import Condition, Decoded, Noisy
from vistok.core.shapes import Grid, Shape, cells
from vistok.decoders.base import Decoder, prefix_of
from vistok.decoders.cnn import CNNDecoder, CNNDecoderConfig
from vistok.layers.qformer import InitKind, QFormer, QFormerConfig, init_weights, table


class DistillConfig(Config):
    """An MLP on the queries after a block, whose output a frozen network's features supervise."""

    depth: int = Field(default=3, ge=1, le=512)
    """Number of the block."""
    dim: int = Field(default=768, ge=1, le=2**14)
    """Channels of its output, the tap `distill` [B, h*w, dim]; 768 are DINOv2-B's."""


class QFormerDecoderConfig(Config):
    kind: Literal["qformer"] = "qformer"
    qformer: QFormerConfig = QFormerConfig()
    queries: Literal["first", "learned"] = "first"
    """Start of the queries: the first value, without its position; or a learned table."""
    missing: Literal["drop", "refuse"] = "drop"
    """Missing values: they are left out; or only whole sequences can be decoded (GigaTok)."""
    z_channels: int = Field(default=256, ge=1, le=2**14)
    """Channels of a value before the Q-Former, of a 1x1 convolution, and of the map behind it."""
    cnn: CNNDecoderConfig = CNNDecoderConfig()
    """Way from the map to the pixels; its own z_channels stay null."""
    distill: DistillConfig | None = None
    init: InitKind = "torch"

    @model_validator(mode="after")
    def _agrees(self) -> QFormerDecoderConfig:
        if self.cnn.z_channels is not None:
            raise InputError(
                f"cnn.z_channels={self.cnn.z_channels}: the map has z_channels={self.z_channels} "
                "here; remove it"
            )
        if self.distill is not None and self.distill.depth > self.qformer.depth:
            raise InputError(
                f"distill.depth={self.distill.depth}: expected the number of a block, "
                f"1..{self.qformer.depth}"
            )
        return self

    @classmethod
    def tiny(cls) -> QFormerDecoderConfig:
        return cls(qformer=QFormerConfig.tiny(), z_channels=8, cnn=CNNDecoderConfig.tiny())


class MapReader(nn.Module):
    """Values -> the map: the half of the decoder before its CNN."""

    def __init__(self, config: QFormerDecoderConfig, grid: Grid, count: int, dim: int) -> None:
        """
        Args:
            grid: of the map. count: M, number of values. dim: D, their width.
        """
        super().__init__()
        self.grid, width, z = grid, config.qformer.width, config.z_channels
        self.embed_z = nn.Linear(dim, z)
        self.norm_in = nn.LayerNorm(z, config.qformer.norm_eps)
        self.embed = nn.Linear(z, width)
        self.latent_positions = table(count, width)
        self.positions = table(cells(grid), width)
        self.queries = table(cells(grid), width) if config.queries == "learned" else None
        self.qformer = QFormer(config.qformer)
        self.conv_z = nn.Conv2d(width, z, 3, padding=1)
        self.distill, self.taps = None, ()
        if config.distill is not None:
            hidden, self.taps = 4 * width, (config.distill.depth,)
            self.distill = nn.Sequential(
                nn.Linear(width, hidden), nn.SiLU(),
                nn.Linear(hidden, hidden), nn.SiLU(),
                nn.Linear(hidden, config.distill.dim),
            )  # fmt: skip

    def forward(self, values: Tensor, present: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """values [B, m, D], the first m <= M of all, present [B, m] bool (None = all m) ->
        the map [B, z, h, w], and features."""
        memory = self.embed(self.norm_in(self.embed_z(values.to(self.embed_z.weight.dtype))))
        if self.queries is None:
            queries = memory[:, :1].expand(-1, len(self.positions), -1)
        else:
            queries = self.queries.to(memory.dtype).expand(len(memory), -1, -1)
        places = self.latent_positions[: values.shape[1]]
        rows, seen = self.qformer(queries, self.positions, memory, places, present, self.taps)
        h, w = self.grid
        # As it lies it would be channels-last.
        maps = rearrange(rows, "b (h w) c -> b c h w", h=h, w=w).contiguous()
        z = self.conv_z(maps)
        features = {"z": rearrange(z, "b c h w -> b (h w) c"), "grid": rows}
        if self.distill is not None:
            features["distill"] = self.distill(seen[self.taps[0]])
        return z, features


@register("decoder", QFormerDecoderConfig)
class QFormerDecoder(Decoder):
    def __init__(
        self, config: QFormerDecoderConfig, shape: Shape, grids: Sequence[Grid], dim: int
    ) -> None:
        """
        Args:
            shape: of the output space; sides are multiples of 2 ** (levels - 1).
            grids: of the M values. dim: D, the width of a value.
        """
        super().__init__()
        self.config, self.count = config, sum(map(cells, grids))
        self.prefix = prefix_of(config.missing, grids)
        grid = config.cnn.conv.grid(shape)
        self.reader = MapReader(config, grid, self.count, dim)
        self.cnn = CNNDecoder(config.cnn, shape, (grid,), config.z_channels)
        init_weights(self, config.init, but=(self.reader.embed_z,))

    def forward(
        self,
        values: Tensor,
        present: Tensor | None = None,
        condition: Condition | None = None,
        noisy: Noisy | None = None,
    ) -> Decoded:
        """values [B, m, D], the first m <= M of all, present [B, m] bool (None = all m) ->
        [B, C, H, W] of the space. With `queries: first` the first value is always read."""
        missing = present is not None or values.shape[1] < self.count
        if self.config.missing == "refuse" and missing:
            raise InputError(
                "this decoder cannot leave values out (missing: refuse); set decoder.missing to "
                "drop and train with a length regularizer"
            )
        z, features = self.reader(values, present)
        decoded = self.cnn.from_map(z)
        return Decoded(decoded.prediction, decoded.estimate, features)

    @property
    def last_layer(self) -> nn.Parameter:
        return self.cnn.last_layer
