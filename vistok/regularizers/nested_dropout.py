"""Nested dropout: train every prefix (Rippel 2014, arXiv 1402.0915; FlexTok, arXiv 2502.13967).

A kept length is drawn for each sample; latents behind it are not shown to the decoder.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from vistok.config.registry import register
from vistok.core.draws import Draws
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.regularizers.kept_lengths import (
    DropsTails,
    KeptLengthsConfig,
    Lengths,
    keep_lengths,
)
from vistok.tokens import TokenSpec

__all__ = ["NestedDropout", "NestedDropoutConfig", "keep_lengths"]


class NestedDropoutConfig(KeptLengthsConfig):
    kind: Literal["nested_dropout"] = "nested_dropout"
    lengths: Lengths = "pow2"
    full: float = Field(default=0.0, ge=0, le=1)
    """Share of samples that keep everything, besides what the draw gives."""


@register("regularizer", NestedDropoutConfig)
class NestedDropout(DropsTails):
    config: NestedDropoutConfig

    def draw(self, spec: TokenSpec, index: Tensor, rng: Rng, progress: Progress) -> Draws:
        u = rng.uniform(index, (2,), per=self.config.per)
        return self.tail(spec, index, u[:, 0], u[:, 1] < self.config.full, rng)
