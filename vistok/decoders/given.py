"""First frames of a clip that a flow decoder is given: in training almost clean and without a loss,
in sampling held at what they are (VideoFlexTok, arXiv 2604.12887).

Frames are those of the output space. Letters: B batch, C channels, T frames, M values.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor

from vistok.config import Config
from vistok.core.draws import PartDraws
from vistok.core.errors import InputError
from vistok.core.rng import Rng
from vistok.layers.flow.prefix import (
    PrefixNoiseConfig,
    given,
    interpolate_prefixed,
    prefix_lengths,
    prefix_times,
)


class GivenConfig(Config):
    """Training with given frames."""

    lengths: tuple[Annotated[int, Field(ge=0, le=2**12)], ...] = Field(default=(0, 1), min_length=1)
    """Numbers of given frames that training draws from."""
    shares: tuple[Annotated[float, Field(ge=0, le=1)], ...] = (0.5, 0.5)
    """Share of samples of each of these numbers; together 1."""
    noise: PrefixNoiseConfig = PrefixNoiseConfig()
    """Noise on given frames."""
    hidden: bool = True
    """A learned vector overwrites the values of given time steps; false: the decoder sees them."""

    @model_validator(mode="after")
    def _agrees(self) -> GivenConfig:
        if len(self.shares) != len(self.lengths) or abs(sum(self.shares) - 1) > 1e-6:
            raise InputError(
                f"shares={list(self.shares)} of lengths={list(self.lengths)}: expected one share "
                "for each length, together 1"
            )
        return self

    def check(self, frames: int) -> None:
        """InputError unless each number leaves something to predict of clips of `frames`."""
        if max(self.lengths) >= frames:
            raise InputError(
                f"given.lengths={list(self.lengths)}: clips have {frames} frames in the output "
                f"space; expected 0..{frames - 1}"
            )

    def draw(self, index: Tensor, rng: Rng) -> dict[str, Tensor]:
        """`given` and `given_time` [B] of PartDraws for samples `index` [B]."""
        lengths = prefix_lengths(rng.uniform(index), self.lengths, self.shares)
        return {
            "given": lengths,
            "given_time": prefix_times(rng.child("noise").uniform(index, (2,)), self.noise),
        }


def corrupted(target: Tensor, noise: Tensor, draws: PartDraws) -> Tensor:
    """Clean clips [B, C, T, h, w] at the sampled times, given frames at theirs."""
    drawn = (draws.time, draws.given, draws.given_time)
    time, lengths, given_time = (one.to(target.device) for one in drawn)
    return interpolate_prefixed(target, noise, time, lengths, given_time).noised


def values_of(lengths: Tensor, steps: int, each: int) -> Tensor:
    """Given time steps [B] -> [B, M] bool, their values, `each` of every step."""
    return given(lengths, steps).repeat_interleave(each, dim=1)


def overwritten(x: Tensor, where: Tensor, token: Tensor) -> Tensor:
    """x [B, M, W] with `token` [W] at the places [B, M]."""
    return torch.where(where[..., None], token.to(x.dtype), x)
