"""Couplings of speculative Jacobi decoding: how a code that was guessed becomes one that is
distributed as the model predicts, and changes seldom.

A draft x was sampled from q (earlier inputs gave it); now the model predicts p. SJD
(arXiv 2410.01699) keeps x with probability min(1, p(x) / q(x)) and else draws from the residual
max(p - q, 0), up to the first change; behind it, it draws anew. MC-SJD (arXiv 2510.24211) keeps or
draws from the residual everywhere (a maximal coupling: no other keeps x more often), or fixes the
noise of each position (Gumbel-max). Either way the result is distributed as p, exactly.
Letters: B samples, n places of a window, V codes, N rows of any shape.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Coupling = Literal["maximal", "gumbel", "quantile", "none"]


def keeps(drafts: Tensor, p: Tensor, q: Tensor, u: Tensor, epsilon: float = 0.0) -> Tensor:
    """bool [N]: u < p(x) / q(x), for drafts x [N].

    Args:
        p, q: [N, V], the distributions that are wanted and that drafts were sampled from.
        u: [N] uniform in [0, 1).
        epsilon: added to q(x); 1e-10 in MC-SJD's code, where it is not exact.
    """
    wanted, given = (one.gather(-1, drafts[..., None])[..., 0] for one in (p, q))
    return u < wanted / (given + epsilon)


def residual(p: Tensor, q: Tensor, epsilon: float = 0.0) -> Tensor:
    """[N, V]: max(p - q, 0), normalized: where drafts that are not kept are replaced from.

    Args:
        epsilon: added to each entry before that; 1e-10 in MC-SJD's code, which may then give codes
            that p excludes.
    """
    over = (p - q).clamp(min=0) + epsilon
    total = over.sum(-1, keepdim=True)
    # Where p and q are one up to a rounding, nothing is left over; nothing is rejected there either
    # but by that rounding.
    return torch.where(total > 0, over / total, p)


def first_change(kept: Tensor) -> Tensor:
    """[B]: the first place of bool [B, n] that is not kept; n if all are."""
    ends = torch.nn.functional.pad(~kept, (0, 1), value=True)
    return ends.to(torch.uint8).argmax(-1)


def settle(
    drafts: Tensor,
    kept: Tensor,
    redrawn: Tensor,
    fresh: Tensor,
    coupling: Literal["maximal", "none"],
    exact: bool = True,
) -> Tensor:
    """Codes [B, n] behind a pass: drafts where they are kept, else new ones.

    Args:
        kept: [B, n] bool. redrawn, fresh: [B, n], sampled from the residual and from p.
        coupling: maximal: redrawn wherever a draft is not kept; none: fresh everywhere behind the
            first change.
        exact: False = fresh at the first change too. MC-SJD's code does so without coupling: its
            samples are then not distributed as the model's.
    """
    codes = torch.where(kept, drafts, redrawn)
    if coupling == "maximal":
        return codes
    place = torch.arange(kept.shape[-1], device=kept.device)
    behind = place - first_change(kept)[..., None]
    return torch.where(behind > 0 if exact else behind >= 0, fresh, codes)
