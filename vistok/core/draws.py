"""Sampled outcomes that stochastic parts obey: drawn outside the arithmetic, keyed, and passed in.

`draws=None` is evaluation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Draws:
    """The outcomes that stochastic parts obey; a field that is None was not sampled."""

    keep: Tensor | None = None  # [B] | [B, S] int64: kept prefix (nested dropout, tail token drop)
    present: Tensor | None = None  # [B, N] bool: any other mask over latents
    levels: Tensor | None = None  # [B, S] bool: blocks that count (scale dropout)
    ranks: Tensor | None = None  # [B, L, P] int64: 0 = clean, r = r-th nearest code
    top_rank: int | None = None  # no rank is larger, in whatever step: a shape must not vary
    uniform: Tensor | None = None  # [B, L, ...] in [0, 1): stochastic VQ, Bernoulli bits
    chosen: Tensor | None = None  # [B, L, F] int64: the same with the outcome imposed
    null: Tensor | None = None  # [B] bool: condition dropout
    time: Tensor | None = None  # [B] in [0, 1]: flow and diffusion
    noise: Tensor | None = None  # like the thing it is added to
    order: Tensor | None = None  # [B, L] int64: generators
    mask: Tensor | None = None  # [B, L] bool: generators

    def map(self, function: Callable[[Tensor], Tensor]) -> Draws:
        """Apply `function` to every tensor that was sampled."""
        sampled = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(
            self, **{k: function(v) for k, v in sampled.items() if isinstance(v, Tensor)}
        )

    def to(self, device: torch.device | str) -> Draws:
        # What is not pinned is staged first, and staging may wait for the device.
        pin = torch.device(device).type == "cuda"
        return self.map(
            lambda tensor: (tensor.pin_memory() if pin else tensor).to(device, non_blocking=True)
        )

    def rows(self, start: int, stop: int) -> Draws:
        """Draws of samples start..stop of the batch (a micro-batch)."""
        return self.map(lambda tensor: tensor[start:stop])

    def join(self, other: Draws, owner: str = "") -> Draws:
        """Both; a field that both sampled is an error, since two parts would fight over it."""
        mine = {f.name: getattr(self, f.name) for f in fields(self)}
        theirs = {f.name: getattr(other, f.name) for f in fields(other)}
        for name, value in theirs.items():
            if value is not None and mine[name] is not None:
                raise ValueError(
                    f"two regularizers fill '{name}' ({owner} is the second); keep one of them"
                )
        return replace(self, **{k: v for k, v in theirs.items() if v is not None})
