"""Tail token drop (One-D-Piece, arXiv 2501.10064): keep k tokens, k uniform on 1..N.

The original draws one k a step for the whole local batch (`per: batch`, the default here); its
shortened sequence is the decoder's `missing: drop`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from vistok.config.registry import register
from vistok.core.draws import Draws
from vistok.core.rng import Per, Rng
from vistok.core.schedules import Progress
from vistok.regularizers.kept_lengths import DropsTails, KeptLengthsConfig, Lengths
from vistok.tokens import TokenSpec


class TailTokenDropConfig(KeptLengthsConfig):
    kind: Literal["tail_token_drop"] = "tail_token_drop"
    lengths: Lengths = "uniform"
    per: Per = "batch"


@register("regularizer", TailTokenDropConfig)
class TailTokenDrop(DropsTails):
    config: TailTokenDropConfig

    def draw(self, spec: TokenSpec, index: Tensor, rng: Rng, progress: Progress) -> Draws:
        u = rng.uniform(index, per=self.config.per)
        return self.tail(spec, index, u, torch.zeros(len(index), dtype=torch.bool), rng)
