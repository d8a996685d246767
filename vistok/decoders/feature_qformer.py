"""Decoder into features: transformers over the values, and queries that read the features of an
image out of them (SEED, arXiv 2310.01218).

Two branches begin at the same rows. One rebuilds what the encoder's queries had read (tap
`queries`; for a loss, nothing else looks at it), the other gives the output space's features.
Letters: B batch, M values, D their width, W width of the rows, C channels of the output space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.core.records import Condition, Decoded, Noisy
from vistok.core.shapes import Grid, Shape, cells
from vistok.decoders.base import Decoder, prefix_of
from vistok.layers.bert_queries import BertQueries, BertQueriesConfig
from vistok.layers.transformer import Transformer, TransformerConfig, init_weights


class FeatureQFormerConfig(Config):
    kind: Literal["feature_qformer"] = "feature_qformer"
    transformer: TransformerConfig = TransformerConfig(width=768, depth=4, heads=12)
    """Of each branch."""
    rebuilds: bool = True
    """The branch that rebuilds the encoder's queries is there; false: tap and branch are not."""
    reader: BertQueriesConfig = BertQueriesConfig(causal=False)
    """Queries, one for each cell of the output space, that read its features."""
    missing: Literal["drop", "refuse"] = "refuse"
    """Missing values: they are left out; or only whole sequences can be decoded."""

    @classmethod
    def tiny(cls) -> FeatureQFormerConfig:
        reader = BertQueriesConfig.tiny().model_copy(update={"causal": False})
        return cls(transformer=TransformerConfig.tiny(), reader=reader, rebuilds=False)


class Branch(nn.Module):
    """Learned positions and a transformer: [B, M, W] -> [B, M, W]."""

    def __init__(self, config: TransformerConfig, count: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(count, config.width) * 0.02)
        self.transformer = Transformer(config)
        init_weights(self.transformer, config)

    def forward(self, x: Tensor, present: Tensor | None) -> Tensor:
        mask = None if present is None else present[:, None, None]
        return self.transformer(x + self.positions[: x.shape[1]].to(x.dtype), mask=mask)


@register("decoder", FeatureQFormerConfig)
class FeatureQFormerDecoder(Decoder):
    """Of images. Tap `queries` [B, M, W] with `rebuilds`."""

    def __init__(
        self, config: FeatureQFormerConfig, shape: Shape, grids: Sequence[Grid], dim: int
    ) -> None:
        """
        Args:
            shape: of the output space. grids: of the M values. dim: D, the width of a value.
        """
        super().__init__()
        self.config, self.shape = config, shape
        self.prefix = prefix_of("refuse" if config.missing == "refuse" else "drop", grids)
        count, width = sum(map(cells, grids)), config.transformer.width
        self.embed = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, width))
        self.rebuild = Branch(config.transformer, count) if config.rebuilds else None
        self.branch = Branch(config.transformer, count)
        self.reader = BertQueries(config.reader, cells(shape.sides), width)
        self.proj = nn.Linear(config.reader.width, shape.channels)

    def forward(
        self,
        values: Tensor,
        present: Tensor | None = None,
        condition: Condition | None = None,
        noisy: Noisy | None = None,
    ) -> Decoded:
        """values [B, M, D] -> [B, C, *sides] of the output space."""
        if present is not None and self.config.missing == "refuse":
            raise InputError(
                "this decoder cannot leave values out (missing: refuse); set decoder.missing=drop "
                "and train with a length regularizer"
            )
        rows = self.embed(values.to(self.proj.weight.dtype))
        features = {}
        if self.rebuild is not None:
            features["queries"] = self.rebuild(rows, present)
        read = self.proj(self.reader(self.branch(rows, present), present)).float()
        y = read.transpose(1, 2).unflatten(2, self.shape.sides)
        return Decoded(y, y, features)

    @property
    def last_layer(self) -> nn.Parameter:
        return self.proj.weight
