"""Clips: time folded into the batch, for networks of single frames, and held frames."""

from __future__ import annotations

import torch
from torch import Tensor

from vistok.core.errors import InputError


def frames(x: Tensor) -> Tensor:
    """Clips [B, C, T, H, W] -> their frames [B*T, C, H, W], sample by sample; images stay."""
    return x.transpose(1, 2).flatten(0, 1) if x.ndim == 5 else x


def unfold(x: Tensor, clips: int) -> Tensor:
    """Frames [B*T, C, H, W] of so many clips B -> [B, C, T, H, W]: the inverse of `frames`."""
    return x.unflatten(0, (clips, -1)).transpose(1, 2)


def hold(clips: Tensor, first: int, total: int | None = None) -> Tensor:
    """Clips [B, C, T, H, W] -> [B, C, total, H, W] whose frame number `first` stays to the end:
    frames behind it are not looked at.

    Args:
        total: None = T.
    InputError unless first is in 1..total - 1.
    """
    total = clips.shape[2] if total is None else total
    if not 1 <= first < total:
        raise InputError(
            f"first_frames={first} of clips of {total} frames; expected 1..{total - 1}"
        )
    return clips[:, :, torch.arange(total).clamp(max=first - 1).to(clips.device)]
