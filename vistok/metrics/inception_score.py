"""Inception Score (Salimans et al. 2016) from running sums: no vector is kept.

IS = exp(mean over samples of KL(p(y|x) || mean p(y)))

The set is cut into splits and the mean over splits is reported. Which split a sample belongs to
follows from its number and torch-fidelity's shuffle (NumPy's legacy generator, seed 2020), so sums
over samples in any order, on any number of ranks, give its value.

Letters: B batch, C classes, S splits, n samples of the whole set.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vistok.core.errors import InputError
from vistok.metrics.accumulator import Accumulator

SPLITS, SEED = 10, 2020


class ISResult(NamedTuple):
    """Mean and spread (divisor n) over splits."""

    mean: float
    std: float
    splits: int


class InceptionScore(Accumulator):
    """`update(logits [B, C], index [B])` of a set of `count` samples; `compute() -> ISResult`."""

    higher_is_better = True

    def __init__(
        self,
        classes: int,
        count: int,
        splits: int = SPLITS,
        seed: int | None = SEED,
        **kwargs: Any,
    ) -> None:
        """seed: of the shuffle; None keeps the order."""
        super().__init__(**kwargs)
        if not 1 <= splits <= count:
            raise InputError(f"{splits} splits of {count} samples; expected 1 to {count}")
        self.splits, self.count = splits, count
        place = np.arange(count)
        if seed is not None:
            place[np.random.RandomState(seed).permutation(count)] = np.arange(count)
        ends = [(i + 1) * count // splits for i in range(splits)]
        self._split = torch.from_numpy(np.searchsorted(ends, place, side="right"))  # [n]
        zeros = lambda *shape: torch.zeros(shape, dtype=torch.float64)
        self.add_sum("shares", zeros(splits, classes))  # sum of p
        self.add_sum("negentropy", zeros(splits))  # sum of p log p
        self.add_sum("members", zeros(splits))

    def update(self, logits: Tensor, index: Tensor) -> None:
        """logits [B, C] of the samples `index` [B] (numbers below `count`)."""
        if logits.ndim != 2 or logits.shape[1] != self.shares.shape[1]:
            raise InputError(
                f"logits are {tuple(logits.shape)}; expected [B, {self.shares.shape[1]}]"
            )
        if not torch.isfinite(logits).all():
            raise InputError("logits are not all finite; look at the images or the precision")
        device = self.shares.device
        logp = logits.detach().to(device).double().log_softmax(1)
        split = self._split[index.cpu()].to(device)
        p = logp.exp()
        self.shares.index_add_(0, split, p)
        self.negentropy.index_add_(0, split, (p * logp).sum(1))
        self.members.index_add_(0, split, torch.ones_like(split, dtype=torch.float64))
        self.images += len(logits)

    def compute(self) -> ISResult:
        """Raises ValueError unless every sample of the set was seen."""
        if self.seen() != self.count:
            raise InputError(f"Inception Score of {self.seen()} of {self.count} samples")
        q = self.shares / self.members[:, None]
        marginal = torch.xlogy(q, q).sum(1)
        scores = (self.negentropy / self.members - marginal).exp().cpu().numpy()
        return ISResult(float(scores.mean()), float(scores.std()), self.splits)
