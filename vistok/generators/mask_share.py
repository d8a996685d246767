"""Shares of masked positions in training, from a truncated normal distribution (MAGE, arXiv
2211.09117; MAR, arXiv 2406.11838)."""

from __future__ import annotations

import math

import torch
from pydantic import Field, model_validator
from torch import Tensor

from vistok.config import Config
from vistok.core.errors import InputError
from vistok.core.rng import Per, Rng


class MaskShareConfig(Config):
    """A normal distribution of which what lies outside `low`..`high` is cut off."""

    mean: float = Field(default=1.0, ge=-10, le=10)
    std: float = Field(default=0.25, gt=0, le=10)
    low: float = Field(default=0.7, ge=0, le=1)
    high: float = Field(default=1.0, ge=0, le=1)
    per: Per = "batch"
    """batch: one share for all samples of a step (MAR, there of each process); sample: each its
    own."""

    @model_validator(mode="after")
    def _ordered(self) -> MaskShareConfig:
        if self.low > self.high:
            raise InputError(f"low={self.low} and high={self.high}; expected low <= high")
        return self

    def at(self, u: Tensor) -> Tensor:
        """Shares [B] in fp64, of uniform numbers [B] in [0, 1), by inverting the distribution."""
        ends = torch.tensor([self.low, self.high], dtype=torch.float64)
        first, last = torch.special.ndtr((ends - self.mean) / self.std).tolist()
        inside = (first + u.double() * (last - first)).clamp(1e-15, 1 - 1e-15)
        found = self.mean + self.std * torch.special.ndtri(inside)
        return found.clamp(self.low, self.high)

    def count(self, share: Tensor, length: int) -> Tensor:
        """Masked positions [B] of `length`, one or more: rounded up."""
        return (share.double() * length).ceil().long().clamp(min=1)

    def most_visible(self, length: int) -> int:
        """No sample has more positions that are not masked."""
        return length - max(math.ceil(self.low * length), 1)

    def mask(self, index: Tensor, rng: Rng, length: int) -> Tensor:
        """[B, L] bool: masked positions of the samples `index` [B], at uniform places."""
        count = self.count(self.at(rng.child("share").uniform(index, per=self.per)), length)
        order = rng.child("order").uniform(index, (length,)).argsort(dim=-1)
        return order.argsort(dim=-1) < count[:, None]
