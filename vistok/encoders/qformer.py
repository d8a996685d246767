"""CNN and Q-Former encoder: a map of the image, read by 1D queries (GigaTok, arXiv 2504.08736).

With redundant latents it is ReTok's (arXiv 2601.01535): behind the N latents that are stored come M
more, which training may show the decoder and nothing else ever does. All attend to each other, so
that the stored ones depend on the others too.
Letters: B batch, h w positions of the map, z its channels, N + M latents, W width of the queries,
D width of the quantizer's input.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.core.records import Condition, Latents
from vistok.core.shapes import Grid, Shape, cells
from vistok.encoders.base import Encoder
from vistok.encoders.cnn import CNNEncoder, CNNEncoderConfig
from vistok.layers.qformer import InitKind, QFormer, QFormerConfig, init_weights, table


class QFormerEncoderConfig(Config):
    kind: Literal["qformer"] = "qformer"
    cnn: CNNEncoderConfig = CNNEncoderConfig()
    """Way to the map; its own z_channels stay null."""
    z_channels: int = Field(default=256, ge=1, le=2**14)
    """Channels of the map, and of a latent before the projection to the quantizer's width."""
    qformer: QFormerConfig = QFormerConfig()
    count: int = Field(default=256, ge=1, le=2**16)
    """N, latents that are stored."""
    redundant: int = Field(default=0, ge=0, le=2**16)
    """M, latents behind them that are not; they start as copies of the last M queries, with
    positions of their own. ReTok: 224 for 256 and a shortest sequence of 32."""
    stored: int | None = Field(default=None, ge=1)
    """Latents that are stored, if not N: up to N + M, so that redundant ones can be decoded too."""
    queries: Literal["mean", "pooled", "learned"] = "mean"
    """Start of the queries: the mean of the map; its means over 1x1 (twice), 1x2, 2x2, 2x4, ...
    blocks, N of them (a power of two); or a learned table."""
    init: InitKind = "torch"

    @model_validator(mode="after")
    def _agrees(self) -> QFormerEncoderConfig:
        if self.cnn.z_channels is not None:
            raise InputError(
                f"cnn.z_channels={self.cnn.z_channels}: the map has z_channels={self.z_channels} "
                "here; remove it"
            )
        if self.redundant > self.count:
            raise InputError(
                f"redundant={self.redundant} latents are copies of stored ones; expected at most "
                f"count={self.count}"
            )
        if self.stored is not None and self.stored > self.count + self.redundant:
            raise InputError(
                f"stored={self.stored}: there are count + redundant = "
                f"{self.count + self.redundant} latents; expected at most that many"
            )
        if self.queries == "pooled" and self.count & (self.count - 1):
            raise InputError(
                f"queries=pooled needs a power of two, and count={self.count}; use another count, "
                "or queries=mean"
            )
        return self

    @classmethod
    def tiny(cls) -> QFormerEncoderConfig:
        return cls(cnn=CNNEncoderConfig.tiny(), z_channels=8, qformer=QFormerConfig.tiny(), count=4)


@register("encoder", QFormerEncoderConfig)
class QFormerEncoder(Encoder):
    def __init__(self, config: QFormerEncoderConfig, shape: Shape, dim: int) -> None:
        """
        Args:
            shape: of the input space; sides are multiples of 2 ** (levels - 1).
            dim: D, the width of a latent.
        """
        super().__init__()
        self.config = config
        width, z, total = config.qformer.width, config.z_channels, config.count + config.redundant
        self.grids = ((total,),)
        stored = config.count if config.stored is None else config.stored
        self.stored = None if stored == total else stored
        self.cnn = CNNEncoder(config.cnn, shape, z)
        self.map = self.cnn.grids[0]
        if config.queries == "pooled":
            pooled_blocks(self.map, config.count)
        self.norm_in = nn.LayerNorm(z, config.qformer.norm_eps)
        self.embed = nn.Linear(z, width)
        self.positions = table(cells(self.map), width)
        self.latent_positions = table(total, width)
        if config.queries == "learned":
            self.queries = table(config.count, width)
        else:
            self.query_proj = nn.Linear(width, width)
        self.qformer = QFormer(config.qformer)
        self.proj_z = nn.Linear(width, z)
        self.proj = nn.Linear(z, dim)
        init_weights(self, config.init, but=(self.proj,))

    def forward(self, x: Tensor, condition: Condition | None = None) -> Latents:
        """x [B, C, H, W] -> latents [B, N + M, D]."""
        z = self.cnn(x).values  # [B, h*w, z]
        memory = self.embed(self.norm_in(z.to(self.norm_in.weight.dtype)))
        queries = self._start(memory)
        y, _ = self.qformer(queries, self.latent_positions, memory, self.positions)
        tokens = self.proj_z(y)
        values = self.proj(tokens)
        features = {"z": z, "latents": y, "tokens": tokens}
        return Latents(values.float(), self.grids, features)

    def _start(self, memory: Tensor) -> Tensor:
        """The queries [B, N + M, W] before the first block."""
        config = self.config
        if config.queries == "learned":
            queries = self.queries.to(memory.dtype).expand(len(memory), -1, -1)
        elif config.queries == "mean":
            queries = memory.mean(1, keepdim=True).expand(-1, config.count, -1)
        else:
            queries = pooled(memory, self.map, config.count)
        if config.redundant:
            queries = torch.cat([queries, queries[:, -config.redundant :]], dim=1)
        return queries if config.queries == "learned" else self.query_proj(queries)


def pooled_blocks(grid: Grid, count: int) -> list[tuple[int, int]]:
    """(rows, columns) of blocks of each group: 1x1, 1x1, 1x2, 2x2, 2x4, ..., `count` in all.

    Raises ValueError for a grid that does not split so.
    """
    groups = [(1, 1)]
    for level in range(count.bit_length() - 1):
        groups.append((2 ** (level // 2), 2 ** ((level + 1) // 2)))
    if any(grid[0] % rows or grid[1] % columns for rows, columns in groups):
        raise InputError(
            f"encoder.queries=pooled splits a map of {grid} into {groups[-1]} blocks for "
            f"count={count} queries; expected sides that are multiples of them: use fewer queries, "
            "fewer levels, or queries=mean"
        )
    return groups


def pooled(rows: Tensor, grid: Grid, count: int) -> Tensor:
    """rows [B, h*w, W] of a map -> [B, count, W]: its means over ever smaller blocks, the large
    ones first, each group row-major."""
    maps = rearrange(rows, "b (h w) c -> b c h w", h=grid[0])
    means = [
        F.avg_pool2d(maps, (grid[0] // r, grid[1] // c)) for r, c in pooled_blocks(grid, count)
    ]
    return torch.cat([rearrange(mean, "b c h w -> b (h w) c") for mean in means], dim=1)
