"""Track encoder: one token per trajectory through a clip (TrajViT, arXiv 2505.23617).

The original takes trajectories from a segmentation network (SAM 2) and its tracker. Here a simple
tracker makes them of the cells themselves: no network, coarse regions, none behind occlusions. A
token is the sum of what the cells of its track hold in each frame and of where they lie, both read
over time by one query.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.core.shapes import Shape
from vistok.encoders.grouped import GroupedConfig, GroupedEncoder
from vistok.layers.grouping import gathered, tracks
from vistok.layers.patchify import PatchesConfig
from vistok.layers.resampler import Resampler, ResamplerConfig
from vistok.layers.transformer import TransformerConfig


class TracksConfig(GroupedConfig):
    kind: Literal["tracks"] = "tracks"
    over_time: ResamplerConfig = ResamplerConfig(
        width=512, depth=2, heads=8, mlp_ratio=0, rotary=True
    )
    """Layers with which one query reads a track over its frames, once for what it holds and once
    for where it is."""
    threshold: float = Field(default=0.5, gt=0, le=8)
    """Squared distance of unit vectors (and places) above which a cell begins a track."""
    place_weight: float = Field(default=1.0, ge=0, le=100)
    """Factor of the coordinates in 0..1 beside a cell's unit vector."""
    key_every: int = Field(default=4, ge=1, le=2**12)
    """Tracks begin in every so many-th frame of patches."""
    momentum: float = Field(default=0.5, ge=0, lt=1)
    """Share of a track's old center in its new one."""

    @model_validator(mode="after")
    def _agrees(self) -> TracksConfig:
        if self.over_time.width != self.width:
            raise InputError(f"over_time.width={self.over_time.width}; expected width={self.width}")
        return self

    @classmethod
    def tiny(cls) -> TracksConfig:
        return cls(
            patches=PatchesConfig(size=2),
            width=16,
            count=4,
            over_time=ResamplerConfig.tiny().model_copy(update={"rotary": True}),
            transformer=TransformerConfig.tiny(),
        )


@register("encoder", TracksConfig)
class TrackEncoder(GroupedEncoder):
    def __init__(self, config: TracksConfig, shape: Shape, dim: int) -> None:
        super().__init__(config, shape, dim)
        time, width = (self.frames,), config.width
        self.appearance = Resampler(config.over_time, width, (1,), time)
        self.course = Resampler(config.over_time, 2, (1,), time)
        self.norm_track = nn.LayerNorm(width, 1e-5)

    def group(self, rows: Tensor) -> Tensor:
        config = self.config
        places = self.where[:, -2:].expand(len(rows), -1, -1) * config.place_weight
        rows = torch.cat([F.normalize(rows, dim=-1), places], dim=-1)
        rows = rows.unflatten(1, (self.frames, -1))
        ids = tracks(rows, config.count, config.threshold, config.key_every, config.momentum)
        return ids.flatten(1)

    def gather(self, rows: Tensor, ids: Tensor) -> Tensor:
        batch, count = len(rows), self.config.count
        each = lambda x: x.unflatten(1, (self.frames, -1)).flatten(0, 1)  # [B T, n, ...]
        where = self.where[:, -2:].to(rows.dtype).expand(batch, -1, -1)
        pieces = torch.cat([rows, where], dim=-1)
        sums, sizes = gathered(each(pieces), each(ids), count)  # [B T, K, W + 2]
        means = sums / sizes.clamp_min(1)[..., None]
        # A track is a sequence of its own: [B K, T, W + 2].
        means = means.unflatten(0, (batch, -1)).transpose(1, 2).flatten(0, 1)
        there = (sizes > 0).unflatten(0, (batch, -1)).transpose(1, 2).flatten(0, 1)
        found = self.appearance(means[..., :-2], there) + self.course(means[..., -2:], there)
        return self.norm_track(found[:, 0]).unflatten(0, (batch, count))
