"""Attention masks: bool, True = may look.

Letters: B batch, L positions, S slots in front of a sequence, g grid cells, N latents.
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


def causal_behind(seen: Tensor, first: int, stop: int) -> Tensor:
    """[B, 1, stop - first, stop]: slots first..stop of a causal sequence, asking all before them.

    Args:
        seen: [B, S] bool, which of the first S slots may be looked at. A slot sees itself in any
            case: a row without a key would have no softmax.
    """
    slots = torch.arange(stop, device=seen.device)
    rows = slots[first:, None]
    return ((with_more(seen, stop)[:, None] & (slots <= rows)) | (slots == rows))[:, None]


def with_more(seen: Tensor, count: int) -> Tensor:
    """[B, count] bool: a mask [B, S] with further positions that are seen, or cut."""
    return torch.nn.functional.pad(seen, (0, max(count - seen.shape[1], 0)), value=True)[:, :count]


def joined(*parts: Tensor | int, batch: int, device: torch.device | str) -> Tensor | None:
    """Keys of a sequence in pieces -> [B, 1, 1, L]: a piece is bool [B, n], or n that all exist.

    None if every piece exists whole: an attention without a mask is the faster one.
    """
    if all(isinstance(part, int) for part in parts):
        return None
    ones = lambda n: torch.ones(batch, n, dtype=torch.bool, device=device)
    rows = [ones(part) if isinstance(part, int) else part for part in parts]
    return torch.cat(rows, dim=1)[:, None, None]
