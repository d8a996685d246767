"""Clips for networks of single frames: time is folded into the batch, and unfolded again."""

from __future__ import annotations

from torch import Tensor


def frames(x: Tensor) -> Tensor:
    """Clips [B, C, T, H, W] -> their frames [B*T, C, H, W], sample by sample; images stay."""
    return x.transpose(1, 2).flatten(0, 1) if x.ndim == 5 else x


def unframes(x: Tensor, count: int | None) -> Tensor:
    """The inverse: frames [B*T, C, H, W] -> clips [B, C, T, H, W]; images stay.

    Args:
        count: T; None = they are images.
    """
    return x if count is None else x.unflatten(0, (-1, count)).transpose(1, 2)
