"""Nested dropout: train every prefix (Rippel 2014, arXiv 1402.0915; FlexTok, arXiv 2502.13967).

A kept length is drawn for each sample; latents behind it are not shown to the decoder.
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


class NestedDropoutConfig(Config):
    kind: Literal["nested_dropout"] = "nested_dropout"
    lengths: Literal["uniform", "pow2", "uniform_pow2"] = "pow2"
    """uniform: 1..N; pow2: 1, 2, 4, ..., N alike (N a power of two); uniform_pow2: uniform, then
    rounded up to a power of two (at most N)."""
    full: float = Field(default=0.0, ge=0, le=1)
    """Share of samples that keep everything, besides what the draw gives."""
    per: Per = "sample"


@register("regularizer", NestedDropoutConfig)
class NestedDropout(Regularizer):
    needs_prefix = True
    fills = ("keep",)

    def __init__(self, config: NestedDropoutConfig) -> None:
        self.config = config

    def check(self, spec: TokenSpec) -> None:
        keep_lengths(torch.zeros(1), spec.max_prefix, self.config.lengths)

    def draw(self, spec: TokenSpec, index: Tensor, rng: Rng, progress: Progress) -> Draws:
        total = spec.max_prefix
        u = rng.uniform(index, (2,), per=self.config.per)
        keep = keep_lengths(u[:, 0], total, self.config.lengths)
        return Draws(keep=torch.where(u[:, 1] < self.config.full, total, keep))


def keep_lengths(u: Tensor, total: int, lengths: str) -> Tensor:
    """Uniform numbers u [B] in [0, 1) -> kept lengths [B] in 1..total."""
    if lengths == "pow2":
        if total & (total - 1):
            raise InputError(
                f"lengths=pow2 needs a power of two, the sequence has {total}; use uniform_pow2"
            )
        return 2 ** (u.double() * total.bit_length()).long().clamp(max=total.bit_length() - 1)
    keep = 1 + (u.double() * total).long().clamp(max=total - 1)
    if lengths == "uniform_pow2":
        powers = 2 ** torch.arange((total - 1).bit_length() + 1)
        keep = powers[torch.searchsorted(powers, keep)].clamp(max=total)
    return keep
