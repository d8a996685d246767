"""Clips for networks of single frames: time is folded into the batch."""

from __future__ import annotations

from torch import Tensor


def frames(x: Tensor) -> Tensor:
    """Clips [B, C, T, H, W] -> their frames [B*T, C, H, W], sample by sample; images stay."""
    return x.transpose(1, 2).flatten(0, 1) if x.ndim == 5 else x
