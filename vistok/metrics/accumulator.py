"""Base of the running measures: torchmetrics' Metric with exact counts.

`update` on every batch, `merge` of two parts, `compute` at the end. With a process group `compute`
sums the states over all ranks first, so every rank must call it. States are fp64 and int64 sums:
the split into batches and ranks cannot change a result beyond fp64 rounding. Inputs may lie on any
device; with NCCL the accumulator itself must be moved to the GPU, like any torchmetrics Metric.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from vistok.core.errors import InputError


class Accumulator(Metric):
    """A Metric whose states are sums, and that refuses to make a number of nothing."""

    full_state_update = False
    higher_is_better = None
    is_differentiable = False
    images: Tensor  # [] int64: how many were seen, on every rank together after a sync

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_sum("images", torch.zeros((), dtype=torch.int64))

    def add_sum(self, name: str, zero: Tensor) -> None:
        """Declare a state that is summed over batches and ranks."""
        self.add_state(name, zero, dist_reduce_fx="sum")

    def merge(self, other: Accumulator) -> Accumulator:
        """Add what another accumulator of the same kind has seen."""
        self.merge_state(other)
        self._update_count += other._update_count
        self._computed = None
        return self

    def seen(self) -> int:
        """Number of images; ValueError for none."""
        if int(self.images) == 0:
            raise InputError(f"{type(self).__name__} has seen no image; update it first")
        return int(self.images)


class Averages(Accumulator):
    """An Accumulator of means over images, each with its standard error.

    Args:
        together: values that belong to one sample and stand side by side: frames of a clip, whose
            mean then counts once in the error.
    """

    def __init__(self, together: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.together = together

    def add_mean(self, name: str) -> None:
        """Declare a state that is averaged over images: the sum `name`, and that of the squares."""
        for state in (name, f"{name}_squared"):
            self.add_sum(state, torch.zeros((), dtype=torch.float64))

    def put(self, name: str, values: Tensor) -> None:
        """Add values [B], one for each image."""
        values = values.double()
        samples = values.unflatten(0, (-1, self.together)).mean(1)
        for state, total in ((name, values.sum()), (f"{name}_squared", (samples**2).sum())):
            own = getattr(self, state)
            own += total.to(own.device)

    def error(self, name: str) -> float:
        """Standard error of the mean over images; NaN for fewer than two samples, or for values
        that are not finite. Call it within `compute`, where the states are those of all ranks."""
        count = self.seen() // self.together
        if count < 2:
            return math.nan
        mean = float(getattr(self, name)) / self.seen()
        variance = (float(getattr(self, f"{name}_squared")) / count - mean**2) / (count - 1)
        return math.sqrt(variance) if variance > 0 else 0.0 if variance <= 0 else math.nan


def unit_range(images: Tensor, name: str) -> Tensor:
    """Images [B, C, H, W], uint8 or float in 0..1 -> float64 in 0..1.

    Raises ValueError outside 0..1 (by more than 1e-3) and for NaN: unclamped reconstructions and
    the ranges -1..1 and 0..255 would give numbers that look right.
    """
    if images.ndim != 4 or images.numel() == 0:
        raise InputError(f"{name} has shape {tuple(images.shape)}; expected [B, C, H, W]")
    images = images.detach()
    images = images.cpu() if images.device.type == "mps" else images  # it has no fp64
    if images.dtype == torch.uint8:
        return images.double() / 255
    if not images.is_floating_point():
        raise InputError(f"{name} is {images.dtype}; expected uint8, or float in 0..1")
    low, high = float(images.min()), float(images.max())
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise InputError(
            f"{name} has values from {low:.4g} to {high:.4g}; expected 0..1 (clamp reconstructions)"
        )
    return images.double()


def pair(pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64 0..1, of one shape."""
    if pred.shape != target.shape:
        raise InputError(
            f"pred is {tuple(pred.shape)}, target {tuple(target.shape)}; expected equal shapes"
        )
    return unit_range(pred, "pred"), unit_range(target, "target")
