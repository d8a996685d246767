"""Mean of distances between images, as a running sum."""

from __future__ import annotations

import math

from torch import Tensor

from vistok.metrics.accumulator import Averages


class MeanDistance(Averages):
    """`update(distances [B])`; `compute()`: mean over images and ranks. `mean_error` is then the
    standard error of that mean."""

    def __init__(self, together: int = 1) -> None:
        super().__init__(together)
        self.add_mean("total")
        self.mean_error = math.nan

    def update(self, distances: Tensor) -> None:
        self.put("total", distances)
        self.images += len(distances)

    def compute(self) -> float:
        self.mean_error = self.error("total")
        return float(self.total) / self.seen()
