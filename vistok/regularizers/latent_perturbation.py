"""Latent perturbation: decode wrong-but-near codes (RobusTok, arXiv 2503.08354 and 2509.12474).

A share `proportion` (paper: beta) of the images is perturbed; in them a token is replaced with
probability `rate` (alpha) by a code drawn uniformly from the `neighbours` (delta) nearest to the
encoder's latent, the clean one among them. alpha and delta are annealed over epochs, beta is not.
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
from vistok.core.rng import Rng
from vistok.core.schedules import Progress, robustok_ratio
from vistok.regularizers.base import Regularizer
from vistok.regularizers.choice import Choose, chosen_images
from vistok.tokens import TokenSpec


class LatentPerturbationConfig(Config):
    kind: Literal["latent_perturbation"] = "latent_perturbation"
    rate: float = Field(default=1.0, ge=0, le=1)
    """alpha: share of the tokens of a perturbed image that draw a rank."""
    proportion: float = Field(default=0.1, ge=0, le=1)
    """beta: share of the images of the global batch."""
    neighbours: int = Field(default=100, ge=1, le=2**20)
    """delta: codes among which a perturbed token draws."""
    anneal: tuple[float, float] | None = (40.0, 120.0)
    """Epochs between which alpha and delta are annealed; null = constant."""
    end_ratio: float = Field(default=0.5, ge=0, le=1)
    """Share of alpha and delta that is left at the end."""
    choose: Choose = "global"
    """Images that are perturbed: global, a keyed pick of exactly floor(beta * B) of the global
    batch; first_local, the first floor(beta * B) of each process (the original)."""


@register("regularizer", LatentPerturbationConfig)
class LatentPerturbation(Regularizer):
    fills = ("ranks",)

    def __init__(self, config: LatentPerturbationConfig) -> None:
        self.config = config

    def check(self, spec: TokenSpec) -> None:
        if not spec.vocab:
            raise InputError(
                "it replaces codes by near ones, but this quantizer has none (vocab=()); use a "
                "quantizer with codes, or leave it out"
            )

    def strength(self, epoch: float) -> tuple[float, int]:
        """(alpha, delta) of an epoch."""
        ratio = 1.0
        if self.config.anneal is not None:
            ratio = robustok_ratio(int(epoch), *self.config.anneal, self.config.end_ratio)
        return ratio * self.config.rate, int(ratio * self.config.neighbours)

    def draw(self, spec: TokenSpec, index: Tensor, rng: Rng, progress: Progress) -> Draws:
        rate, neighbours = self.strength(progress.epoch)
        if neighbours < 1 or rate == 0 or self.config.proportion == 0:
            return Draws()
        shape = (spec.length, spec.branches)
        u, v = rng.uniform(index, (2, *shape)).unbind(1)
        ranks = perturbation_ranks(u, (v.double() * neighbours).long(), rate)
        images = chosen_images(index, self.config.proportion, self.config.choose, rng)
        ranks = torch.where(images[:, None, None], ranks, 0)
        return Draws(ranks=ranks, top_rank=self.config.neighbours - 1)


def perturbation_ranks(u: Tensor, rank: Tensor, rate: float) -> Tensor:
    """A token's drawn `rank` where its number u <= rate, else 0 (the clean code)."""
    return torch.where(u <= rate, rank, 0)
