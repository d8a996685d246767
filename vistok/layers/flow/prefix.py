"""Clips whose first latent frames are given: almost clean in training, without a loss.

VideoFlexTok (arXiv 2604.12887) noises a whole clip to one time and then overwrites the given
frames by ones that carry a little noise or none. The network is told the clip's time for all.
Letters: B batch, C channels, T latent frames, h w rows and columns.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from vistok.config import Config
from vistok.layers.flow.path import interpolate


class PrefixNoiseConfig(Config):
    """Noise on the given frames in training."""

    share: float = Field(default=0.5, ge=0, le=1)
    """Share of samples whose given frames carry noise."""
    high: float = Field(default=0.02, ge=0, le=1)
    """Their times are uniform in [0, high]."""


class Prefixed(NamedTuple):
    """Noised clips and which of their frames are learned."""

    noised: Tensor  # [B, C, T, h, w]
    counts: Tensor  # [B, T] bool: frames whose loss counts


def prefix_times(uniform: Tensor, config: PrefixNoiseConfig) -> Tensor:
    """Uniform numbers [B, 2] in [0, 1) -> times [B] of the given frames."""
    noisy = uniform[:, 0] < config.share
    return torch.where(noisy, config.high * uniform[:, 1], 0.0)


def prefix_lengths(uniform: Tensor, lengths: tuple[int, ...], shares: tuple[float, ...]) -> Tensor:
    """Uniform numbers [B] in [0, 1) -> given frames [B] int64, drawn from `lengths` by `shares`."""
    ends = torch.tensor(shares, dtype=torch.float64).cumsum(0)
    chosen = torch.searchsorted(ends / ends[-1], uniform.double().contiguous(), right=True)
    return torch.tensor(lengths)[chosen.clamp(max=len(lengths) - 1)]


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
