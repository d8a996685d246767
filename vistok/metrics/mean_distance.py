"""Mean of distances between images, as a running sum."""

from __future__ import annotations

import torch
from torch import Tensor

from vistok.metrics.accumulator import Accumulator


class MeanDistance(Accumulator):
    """`update(distances [B])`; `compute()`: mean over images and ranks."""

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("total", torch.zeros((), dtype=torch.float64))

    def update(self, distances: Tensor) -> None:
        self.total += distances.double().sum().to(self.total.device)
        self.images += len(distances)

    def compute(self) -> float:
        return float(self.total) / self.seen()
