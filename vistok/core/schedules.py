"""Functions of the training step: ramps, learning-rate factors, annealing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Position in training: everything that a schedule may depend on."""

    step: int  # optimizer steps done
    steps: int  # of how many
    epoch: float = 0.0  # passes over the data


def ramp(step: int, start: int, length: int) -> float:
    """0 before `start`, then linear to 1 over `length` steps (length 0: a jump)."""
    if step < start:
        return 0.0
    return 1.0 if length <= 0 else min(1.0, (step - start + 1) / length)


def warmup_cosine(step: int, steps: int, warmup: int, final: float, hold: int = 0) -> float:
    """Learning-rate factor: linear warm-up, `hold` steps at 1, then half a cosine from 1 down to
    `final`."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    start = warmup + hold
    share = min(1.0, max(0, step - start) / max(1, steps - start))
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * share))


def dropped(step: int, steps: int, shares: Sequence[float], factor: float) -> float:
    """Learning-rate factor that is multiplied by `factor` behind each share of the steps."""
    return factor ** sum(step >= share * steps for share in shares)


def robustok_ratio(epoch: float, start: float, end: float, end_ratio: float) -> float:
    """RobusTok's annealing of alpha and delta: 1, then a line, then `end_ratio`.

    The line falls by `end_ratio` in all, so it meets the end value only at end_ratio 0.5: that is
    the original's formula, kept as published.
    """
    if epoch < start:
        return 1.0
    if epoch > end or start >= end:
        return end_ratio
    return 1.0 - (epoch - start) / (end - start) * end_ratio
