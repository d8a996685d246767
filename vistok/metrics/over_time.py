"""Reconstructions of clips over time: quality of each frame, and flicker between frames.

Flicker is the error of the changes from frame to frame: d_t = x_(t+1) - x_t of the decoded clip
against that of the real one. A clip that is too dark throughout has none; frames that err each in
its own way have much, whatever their mean error.

Letters: B clips, T frames.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from vistok.core.errors import InputError
from vistok.layers.frames import frames
from vistok.metrics.accumulator import Accumulator, pair
from vistok.metrics.quality import decibels


class FlickerResult(NamedTuple):
    """Errors of the changes between frames, and the mean PSNR of whole clips."""

    flicker: float  # mean absolute error of the changes, in gray levels of 255
    change_psnr: float  # dB, of the squared error of the changes over all pixels, peak 1
    clip_psnr: float  # dB, of each clip as a whole, averaged over clips


class Flicker(Accumulator):
    """`update(pred, target)`, both [B, C, T, H, W] in 0..1 or uint8, T of 2 or more; `compute() ->
    FlickerResult`. `images` counts clips."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("distance", "squares", "decibels"):
            self.add_sum(name, torch.zeros((), dtype=torch.float64))
        self.add_sum("values", torch.zeros((), dtype=torch.int64))

    def update(self, pred: Tensor, target: Tensor) -> None:
        if pred.ndim != 5 or pred.shape[2] < 2:
            raise InputError(f"clips are {tuple(pred.shape)}; expected [B, C, T, H, W], T >= 2")
        count = pred.shape[2]
        pred, target = pair(frames(pred), frames(target))
        error = (pred - target).unflatten(0, (-1, count))  # [B, T, C, H, W]
        moved = error.diff(dim=1)
        self.distance += moved.abs().sum().to(self.distance.device)
        self.squares += (moved**2).sum().to(self.squares.device)
        self.values += moved.numel()
        each = decibels((error**2).flatten(1).mean(1))
        self.decibels += each.sum().to(self.decibels.device)
        self.images += len(error)

    def compute(self) -> FlickerResult:
        clips = self.seen()
        return FlickerResult(
            255 * float(self.distance / self.values),
            float(decibels(self.squares / self.values)),
            float(self.decibels) / clips,
        )


class PerFrame(Accumulator):
    """`update(values [B, T])`; `compute()`: mean over clips at each of the T frames."""

    def __init__(self, count: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_sum("total", torch.zeros(count, dtype=torch.float64))

    def update(self, values: Tensor) -> None:
        self.total += values.double().sum(0).to(self.total.device)
        self.images += len(values)

    def compute(self) -> list[float]:
        return (self.total / self.seen()).tolist()
