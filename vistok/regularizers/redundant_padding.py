"""Redundant token padding (ReTok, arXiv 2601.01535): nested dropout over more than is stored.

N latents are stored and M more follow. A kept length k is drawn from the floor K0 to T = N + M, so
that the tail of the stored ones is shown often: with uniform lengths position i (from 1) with
probability (T - max(i, K0) + 1) / (T - K0 + 1). How the original draws is not published.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.draws import Draws
from vistok.core.errors import InputError
from vistok.core.rng import Per, Rng
from vistok.core.schedules import Progress
from vistok.regularizers.base import Regularizer
from vistok.tokens import TokenSpec


class RedundantPaddingConfig(Config):
    kind: Literal["redundant_padding"] = "redundant_padding"
    padding: int = Field(default=224, ge=0, le=2**16)
    """M, latents that the encoder emits behind those that are stored (its `redundant`)."""
    floor: int = Field(default=32, ge=1, le=2**16)
    """K0, the shortest length; at most the number of stored latents."""
    lengths: Literal["uniform", "doubling"] = "uniform"
    """uniform: K0..T alike; doubling: K0, 2 K0, 4 K0, ... and T alike."""
    per: Per = "batch"
    """One length for the whole batch, as the original's code cuts it, or one per sample."""

    @classmethod
    def tiny(cls) -> RedundantPaddingConfig:
        return cls(padding=0, floor=1)


@register("regularizer", RedundantPaddingConfig)
class RedundantPadding(Regularizer):
    needs_prefix = True
    fills = ("keep",)

    def __init__(self, config: RedundantPaddingConfig) -> None:
        self.config, self.padding = config, config.padding

    def check(self, spec: TokenSpec) -> None:
        if spec.prefix != "token":
            raise InputError(
                f"it cuts one sequence of latents, and this tokenizer has prefix={spec.prefix}; "
                "use nested_dropout"
            )
        if self.config.floor > spec.length:
            raise InputError(
                f"floor={self.config.floor} is more than the {spec.length} latents that are stored"
            )

    def draw(self, spec: TokenSpec, index: Tensor, rng: Rng, progress: Progress) -> Draws:
        total, floor = spec.length + self.padding, self.config.floor
        u = rng.uniform(index, per=self.config.per).double()
        if self.config.lengths == "uniform":
            count = total - floor + 1
            return Draws(keep=floor + (u * count).long().clamp(max=count - 1))
        doubled = [floor * 2**i for i in range((total // floor).bit_length())]
        lengths = torch.tensor([*(k for k in doubled if k < total), total])
        return Draws(keep=lengths[(u * len(lengths)).long().clamp(max=len(lengths) - 1)])
