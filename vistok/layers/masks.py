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


def visible(present: Tensor, before: int) -> Tensor:
    """present [B, N] -> [B, 1, 1, before+N]: keys that exist, behind `before` that always do."""
    always = present.new_ones(present.shape[0], before)
    return torch.cat([always, present], dim=1)[:, None, None]
