"""Normalization layers by name, with every epsilon explicit."""

from __future__ import annotations

from typing import Literal

from torch import nn

NormKind = Literal["layernorm", "rmsnorm", "none"]


def make_norm(kind: NormKind, width: int, eps: float = 1e-6, affine: bool = True) -> nn.Module:
    """A norm over the last axis: [..., width] -> [..., width]."""
    if kind == "layernorm":
        return nn.LayerNorm(width, eps=eps, elementwise_affine=affine)
    if kind == "rmsnorm":
        return nn.RMSNorm(width, eps=eps, elementwise_affine=affine)
    return nn.Identity()
