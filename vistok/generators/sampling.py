"""From logits to a choice: guidance, temperature, top-k, top-p, and a keyed number.

The order is the usual one (LlamaGen): guide, divide by temperature, top-k, top-p, draw.
Letters: B samples, R = B or 2B rows (conditional, then unconditional), V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SamplingConfig:
    """Decode settings; they travel with every number that is measured on samples."""

    guidance: float = 1.0  # classifier-free scale s in u + s (c - u); 1 = none
    temperature: float = 1.0  # 0 = greedy
    top_k: int = 0  # 0 = all
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature={self.temperature}: expected 0 (greedy) or more")
        if self.top_k < 0:
            raise ValueError(f"top_k={self.top_k}: expected 0 (all) or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p}: expected more than 0, at most 1")


def guide(logits: Tensor, scale: float) -> Tensor:
    """[2B, V] -> [B, V]: u + scale (c - u); without guidance the logits themselves."""
    if scale == 1.0:
        return logits
    conditional, unconditional = logits.chunk(2)
    return unconditional + scale * (conditional - unconditional)


def choose(logits: Tensor, u: Tensor, config: SamplingConfig) -> Tensor:
    """logits [R, V] fp32, u [B] in [0, 1) -> [B] int64, by inverting the distribution at u."""
    logits = guide(logits, config.guidance)
    if config.temperature == 0:
        return logits.argmax(-1)
    logits = logits / config.temperature
    if 0 < config.top_k < logits.shape[-1]:
        # By place, not by value: equal logits must not let more than k through.
        kept = logits.topk(config.top_k, dim=-1)
        logits = torch.full_like(logits, -torch.inf).scatter(-1, kept.indices, kept.values)
    if config.top_p < 1:
        logits = _nucleus(logits, config.top_p)
    # In fp64 the last step of the staircase is 1 up to rounding that no u can fall behind.
    stairs = logits.double().softmax(-1).cumsum(-1)
    drawn = torch.searchsorted(stairs, u.double()[:, None] * stairs[:, -1:], right=True)
    return drawn[:, 0].clamp(max=logits.shape[-1] - 1)


def _nucleus(logits: Tensor, share: float) -> Tensor:
    """Keep the fewest most likely codes whose probability reaches `share`."""
    ordered, order = logits.sort(dim=-1, descending=True)
    probability = ordered.softmax(-1)
    before = probability.cumsum(-1) - probability
    drop = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, before >= share)
    return logits.masked_fill(drop, -torch.inf)
