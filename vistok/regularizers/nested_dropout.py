"""Nested dropout: train every prefix (Rippel 2014, arXiv 1402.0915; FlexTok, arXiv 2502.13967).

A kept length is drawn for each sample; latents behind it are not shown to the decoder. Clips whose
time steps have tokens of their own share one length (VideoFlexTok's releases, arXiv 2604.12887), or
draw one for each step.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from vistok.config.registry import register
from vistok.core.draws import Draws
from vistok.core.errors import InputError
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
    time_steps: Literal["shared", "each"] = "shared"
    """shared: one length for all time steps of a clip; each: one per time step, for tokenizers
    whose prefixes are `per_block`."""
    first_lengths: Lengths | None = None
    """With time_steps=each: the lengths of the first time step; null = as the others."""

    @model_validator(mode="after")
    def _of_each(self) -> NestedDropoutConfig:
        if self.time_steps == "shared" and self.first_lengths is not None:
            raise InputError("first_lengths is a key of time_steps=each, not of shared")
        if self.time_steps == "each" and self.tail == "soft":
            raise InputError("time_steps=each draws kept lengths; expected tail=hard")
        return self

    def first(self) -> NestedDropoutConfig:
        """The same with the lengths of the first time step."""
        if self.first_lengths is None:
            return self
        return type(self)(**{**self.model_dump(), "lengths": self.first_lengths})


@register("regularizer", NestedDropoutConfig)
class NestedDropout(DropsTails):
    config: NestedDropoutConfig

    def check(self, spec: TokenSpec) -> None:
        super().check(spec)
        if self.config.time_steps == "each":
            if spec.prefix != "per_block":
                raise InputError(
                    "time_steps=each keeps a length per time step, and this tokenizer shortens "
                    f"sequences by '{spec.prefix}'; use time_steps=shared"
                )
            self.config.first().shares(spec.max_prefix)

    def draw(self, spec: TokenSpec, index: Tensor, rng: Rng, progress: Progress) -> Draws:
        u = rng.uniform(index, (2,), per=self.config.per)
        if self.config.time_steps == "each":
            return self._of_each(spec, index, u[:, 1] < self.config.full, rng)
        return self.tail(spec, index, u[:, 0], u[:, 1] < self.config.full, rng)

    def _of_each(self, spec: TokenSpec, index: Tensor, whole: Tensor, rng: Rng) -> Draws:
        """Kept lengths [B, S], independent for each time step; `whole` [B] keep all."""
        total = spec.max_prefix
        u = rng.child("time_steps").uniform(index, (len(spec.blocks),), per=self.config.per)
        first = self.config.first().keep(u[:, 0], total)[:, None]
        later = self.config.keep(u[:, 1:].flatten(), total).reshape(len(u), -1)
        keep = torch.cat([first, later], dim=1)
        return Draws(keep=torch.where(whole[:, None], total, keep))
