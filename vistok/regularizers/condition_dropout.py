"""Condition dropout: a share of the samples sees no text or class (classifier-free guidance)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.draws import Draws
from vistok.core.rng import Per, Rng
from vistok.core.schedules import Progress
from vistok.regularizers.base import Regularizer
from vistok.tokens import TokenSpec


class ConditionDropoutConfig(Config):
    kind: Literal["condition_dropout"] = "condition_dropout"
    share: float = Field(default=0.1, ge=0, le=1)
    """Share of samples that see no text and no class."""
    per: Per = "sample"


@register("regularizer", ConditionDropoutConfig)
class ConditionDropout(Regularizer):
    fills = ("null",)

    def __init__(self, config: ConditionDropoutConfig) -> None:
        self.config = config

    def draw(self, spec: TokenSpec, index: Tensor, rng: Rng, progress: Progress) -> Draws:
        return Draws(null=rng.uniform(index, per=self.config.per) < self.config.share)
