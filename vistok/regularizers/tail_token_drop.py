"""Tail token drop (One-D-Piece, arXiv 2501.10064): keep k tokens, k uniform on 1..N.

The original draws one k a step for the whole local batch (`per: batch`, the default here); its
shortened sequence is the decoder's `missing: drop`.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.draws import Draws
from vistok.core.rng import Per, Rng
from vistok.core.schedules import Progress
from vistok.regularizers.base import Regularizer
from vistok.regularizers.nested_dropout import keep_lengths
from vistok.tokens import TokenSpec


class TailTokenDropConfig(Config):
    kind: Literal["tail_token_drop"] = "tail_token_drop"
    per: Per = "batch"


@register("regularizer", TailTokenDropConfig)
class TailTokenDrop(Regularizer):
    needs_prefix = True
    fills = ("keep",)

    def __init__(self, config: TailTokenDropConfig) -> None:
        self.config = config

    def draw(self, spec: TokenSpec, index: Tensor, rng: Rng, progress: Progress) -> Draws:
        u = rng.uniform(index, per=self.config.per)
        return Draws(keep=keep_lengths(u, spec.max_prefix, "uniform"))
