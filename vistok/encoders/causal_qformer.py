"""Causal Q-Former encoder: learned queries read the features of an image, each after those before
it (SEED, arXiv 2307.08041 and 2310.01218).

Latent i depends on queries 0..i alone, so that the first tokens say what the image is about and
later ones add to it. Meant for an input space of features of a frozen vision network.
Letters: B batch, C channels of the input space, N latents, W width of a query, D width of a latent.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.records import Condition, Latents
from vistok.core.shapes import Shape
from vistok.encoders.base import Encoder
from vistok.layers.bert_queries import BertQueries, BertQueriesConfig


class CausalQFormerConfig(Config):
    kind: Literal["causal_qformer"] = "causal_qformer"
    count: int = Field(default=32, ge=1, le=2**16)
    """N latents."""
    queries: BertQueriesConfig = BertQueriesConfig()

    @classmethod
    def tiny(cls) -> CausalQFormerConfig:
        return cls(count=4, queries=BertQueriesConfig.tiny())


@register("encoder", CausalQFormerConfig)
class CausalQFormerEncoder(Encoder):
    """Tap `queries` [B, N, W]: what the queries read, before it is narrowed."""

    def __init__(self, config: CausalQFormerConfig, shape: Shape, dim: int) -> None:
        """
        Args:
            shape: of the input space, C channels on any grid. dim: D, the width of a latent.
        """
        super().__init__()
        self.config, width = config, config.queries.width
        self.grids = ((config.count,),)
        self.norm_in = nn.LayerNorm(shape.channels)
        self.queries = BertQueries(config.queries, config.count, shape.channels)
        self.proj = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, dim))

    def forward(self, x: Tensor, condition: Condition | None = None) -> Latents:
        """x [B, C, *sides] -> latents [B, N, D]."""
        memory = self.norm_in(x.flatten(2).transpose(1, 2).to(self.norm_in.weight.dtype))
        read = self.queries(memory)
        return Latents(self.proj(read).float(), self.grids, {"queries": read})
