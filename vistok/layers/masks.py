"""Attention masks: bool, True = may look.

Letters: B batch, L positions, g grid cells, N latents.
"""

from __future__ import annotations

import torch
from torch import Tensor


def causal_last(first: int, last: int) -> Tensor:
    """[first+last, first+last]: the first see the first; each of the last sees those and itself.

    FlexTok's mask for registers behind patches: a prefix of the latents never depends on its tail.
    """
    total = first + last
    mask = torch.ones(total, total, dtype=torch.bool).tril()
    mask[:first, :first] = True
    return mask


def joined(*parts: Tensor | int, batch: int, device: torch.device | str) -> Tensor | None:
    """Keys of a sequence in pieces -> [B, 1, 1, L]: a piece is bool [B, n], or n that all exist.

    None if every piece exists whole: an attention without a mask is the faster one.
    """
    if all(isinstance(part, int) for part in parts):
        return None
    ones = lambda n: torch.ones(batch, n, dtype=torch.bool, device=device)
    rows = [ones(part) if isinstance(part, int) else part for part in parts]
    return torch.cat(rows, dim=1)[:, None, None]
