"""Arithmetic of speculative Jacobi decoding: when a code that was guessed may stay.

A draft x was sampled from q; now the model, which sees other inputs, predicts p. Speculative
sampling keeps x with probability min(1, p(x) / q(x)) and else draws from the residual
max(p - q, 0). The result is distributed as p exactly, and differs from x as seldom as it can: the
two are coupled maximally. SJD (arXiv 2410.01699) does so up to the first change and draws
independent codes behind it; MC-SJD (arXiv 2510.24211) does so everywhere.
Letters: B samples, n places of a window, V codes.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Coupling = Literal["maximal", "gumbel", "quantile", "none"]


def keeps(wanted: Tensor, given: Tensor, u: Tensor, epsilon: float = 0.0) -> Tensor:
    """bool [...]: drafts that stay, u < p(x) / q(x).

    Args:
        wanted, given: p(x) and q(x) of the drafts x. u: uniform in [0, 1).
        epsilon: added to q(x); MC-SJD's code has 1e-10 there.
    """
    return u < wanted / (given + epsilon)


def residual(p: Tensor, q: Tensor, epsilon: float = 0.0) -> Tensor:
    """max(p - q, 0), normalized, [..., V]: the distribution of codes for drafts that do not stay.

    Args:
        epsilon: added to every entry before; MC-SJD's code has 1e-10 there, and may give codes that
            p excludes.
    """
    over = (p - q).clamp(min=0) + epsilon
    total = over.sum(-1, keepdim=True)
    # Nothing is left over where p and q are equal but for a rounding.
    return torch.where(total > 0, over / total, p)


def first_change(kept: Tensor) -> Tensor:
    """[B]: the first place of kept [B, n] that is false; n if there is none."""
    ends = F.pad(~kept, (0, 1), value=True)
    return ends.to(torch.uint8).argmax(-1)


def behind_change(kept: Tensor, exact: bool = True) -> Tensor:
    """bool [B, n]: the places behind the first change, where SJD draws independent codes.

    Args:
        exact: False = the first change is one of them. MC-SJD's code without coupling does so; the
            code there is then not distributed as p.
    """
    changed = (~kept).cumsum(-1)
    return (changed - (~kept).long() if exact else changed) > 0
