"""Clips whose first latent frames are given: almost clean in training, without a loss.

VideoFlexTok (arXiv 2604.12887) noises a whole clip to one time and then overwrites the given
frames by ones that carry a little noise or none. The network is told the clip's time for all.
Letters: B batch, C channels, T latent frames, h w rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor

from vistok.config import Config
from vistok.core.draws import picked
from vistok.core.errors import InputError
from vistok.layers.flow.path import interpolate


class PrefixNoiseConfig(Config):
    """Noise on the given frames in training."""

    share: float = Field(default=0.5, ge=0, le=1)
    """Share of samples whose given frames carry noise."""
    low: float = Field(default=0.0, ge=0, le=1)
    """Their times are uniform in [low, high]."""
    high: float = Field(default=0.02, ge=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> PrefixNoiseConfig:
        if self.low > self.high:
            raise InputError(f"low={self.low:g}, high={self.high:g}: expected the smaller first")
        return self


class Prefixed(NamedTuple):
    """Noised clips and which of their frames are learned."""

    noised: Tensor  # [B, C, T, h, w]
    counts: Tensor  # [B, T] bool: frames whose loss counts


def prefix_times(uniform: Tensor, config: PrefixNoiseConfig) -> Tensor:
    """Uniform numbers [B, 2] in [0, 1) -> times [B] of the given frames."""
    noisy = uniform[:, 0] < config.share
    return torch.where(noisy, config.low + (config.high - config.low) * uniform[:, 1], 0.0)


def prefix_lengths(uniform: Tensor, lengths: tuple[int, ...], shares: tuple[float, ...]) -> Tensor:
    """Uniform numbers [B] in [0, 1) -> given frames [B] int64, drawn from `lengths` by `shares`."""
    chosen = picked(torch.tensor(shares, dtype=torch.float64), uniform.double())
    return torch.tensor(lengths)[chosen]


def given(lengths: Tensor, steps: int) -> Tensor:
    """Given frames [B] -> [B, T] bool, True for a frame that is given."""
    return torch.arange(steps, device=lengths.device) < lengths[:, None]


def interpolate_prefixed(
    clean: Tensor, noise: Tensor, time: Tensor, lengths: Tensor, prefix_time: Tensor
) -> Prefixed:
    """Clips at `time` [B], their first `lengths` [B] frames at `prefix_time` [B].

    Args:
        clean: [B, C, T, h, w], as `noise`.
    """
    known = given(lengths, clean.shape[2])
    shown = known[:, None, :, None, None]
    inside = interpolate(clean, noise, prefix_time)
    return Prefixed(torch.where(shown, inside, interpolate(clean, noise, time)), ~known)


def mean_of_others(errors: Tensor, lengths: Tensor) -> Tensor:
    """Mean of errors [B, C, T, h, w] over the frames that are not given, each sample alike."""
    counts = ~given(lengths, errors.shape[2])
    frames = errors.mean(dim=(1, 3, 4))
    return ((frames * counts).sum(1) / counts.sum(1)).mean()


def with_given(x: Tensor, frames: Tensor) -> Tensor:
    """x [B, C, T, h, w] whose first frames are `frames` [B, C, t, h, w]."""
    return torch.cat([frames.to(x), x[:, :, frames.shape[2] :]], dim=2)


def holder(
    frames: Tensor, noise: Tensor, how: Literal["clean", "sdedit"]
) -> Callable[[Tensor, float], Tensor]:
    """Function (x, time) that puts given frames [B, C, t, h, w] into a sample x [B, C, T, h, w].

    clean: as they are; sdedit: noised to that time, with the first frames of the noise
    [B, C, T, h, w] that sampling began with (arXiv 2108.01073).
    """
    first = noise[:, :, : frames.shape[2]]

    def hold(x: Tensor, time: float) -> Tensor:
        if how == "clean":
            return with_given(x, frames)
        return with_given(x, (1 - time) * frames + time * first)

    return hold
