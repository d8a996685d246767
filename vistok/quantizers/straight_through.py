"""The straight-through estimator (arXiv 1308.3432)."""

from __future__ import annotations

from torch import Tensor


def straight_through(values: Tensor, through: Tensor) -> Tensor:
    """`values` in the forward pass, bit by bit; the gradient of `through` in the backward pass."""
    return values.detach() + (through - through.detach())
