"""Cluster encoder: k-means of an image's or clip's patches, one token per cluster (VQToken, arXiv
2503.16980).

A sample has a codebook of its own: the mean of each cluster's patches, of as many clusters as its
costs bend at. The original hands a language model those means and a map of cluster ids, whose
numbers it reads as quantities; here a token carries where its cluster lies.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.encoders.grouped import GroupedConfig, GroupedEncoder
from vistok.layers.grouping import clusters, gathered
from vistok.layers.patchify import PatchesConfig
from vistok.layers.resampler import ResamplerConfig


class ClustersConfig(GroupedConfig):
    kind: Literal["clusters"] = "clusters"
    least: int | None = Field(default=12, ge=1)
    """Each sample has between `least` and `count` clusters: the number at which the mean distance
    bends most. null = always `count`, fewer only where patches are equal."""
    steps: int = Field(default=20, ge=1, le=1000)
    """Steps of k-means; the original stops after 100 to 300, or when centers rest."""

    @model_validator(mode="after")
    def _agrees(self) -> ClustersConfig:
        if self.least is not None and self.least > self.count:
            raise InputError(f"least={self.least} clusters of at most count={self.count}")
        return self

    @classmethod
    def tiny(cls) -> ClustersConfig:
        return cls(
            patches=PatchesConfig(size=2),
            width=16,
            count=4,
            least=2,
            reader=ResamplerConfig.tiny(),
        )


@register("encoder", ClustersConfig)
class ClusterEncoder(GroupedEncoder):
    def group(self, rows: Tensor) -> Tensor:
        config = self.config
        return clusters(rows, config.count, config.least, config.steps)

    def gather(self, rows: Tensor, ids: Tensor) -> Tensor:
        """Means of the members' directions, scaled to unit variance."""
        unit = F.normalize(rows, dim=-1) * rows.shape[-1] ** 0.5
        sums, sizes = gathered(unit, ids, self.config.count)
        return sums / sizes.clamp_min(1)[..., None]
