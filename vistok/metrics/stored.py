"""Feature vectors that must be kept: KID, precision and recall need the vectors themselves.

Nothing is ever dropped on the way in: a store that is full is an error. Whoever has more samples
says so first and keeps a keyed subset, `chosen(count, cap)`, the same on every machine.

Letters: B batch, D feature width, n vectors over all ranks.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from vistok.core.errors import InputError
from vistok.core.rng import Rng
from vistok.runtime import distributed

CAP = 50_000  # vectors: 400 MB of Inception features


def chosen(count: int, cap: int = CAP, seed: int = 0) -> np.ndarray | None:
    """Sorted sample numbers [cap] of a keyed subset of 0..count-1; None: all of them fit."""
    if count <= cap:
        return None
    order = Rng(seed, "metrics/subset").generator().permutation(count)
    return np.sort(order[:cap])


class FeatureStore:
    """`update(features [B, D], index [B])`, then `gathered()`: all ranks' vectors by number."""

    def __init__(self, dim: int, cap: int = CAP) -> None:
        self.dim, self.cap, self.count = int(dim), int(cap), 0
        self._parts: list[tuple[Tensor, Tensor]] = []

    def update(self, features: Tensor, index: Tensor) -> FeatureStore:
        """Keep features [B, D] (as float32, on the CPU) of the samples `index` [B].

        Raises ValueError for another width, values that are not finite, and a full store.
        """
        if features.ndim != 2 or features.shape[1] != self.dim or len(index) != len(features):
            raise InputError(
                f"features are {tuple(features.shape)} for {len(index)} samples; expected "
                f"[B, {self.dim}] and B sample numbers"
            )
        if not torch.isfinite(features).all():
            raise InputError("features are not all finite; look at the images or the precision")
        self.count += len(features)
        if self.count > self.cap:
            raise InputError(
                f"{self.count} feature vectors for a store of {self.cap}; keep a subset "
                f"(`chosen`) or raise its cap"
            )
        if len(features):
            self._parts.append((index.cpu().long(), features.detach().float().cpu()))
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """Kept vectors and their numbers, in the order they came; both grow with every update."""
        index = torch.cat([torch.zeros(0, dtype=torch.int64), *(i for i, _ in self._parts)])
        features = torch.cat([torch.zeros(0, self.dim), *(f for _, f in self._parts)])
        return {"index[]": index, "features[]": features}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Keep exactly what `state_dict` gave."""
        self.count, self._parts = 0, []
        self.update(state["features[]"], state["index[]"])

    def merge(self, other: FeatureStore) -> FeatureStore:
        """Add another store's vectors to this one's."""
        for index, features in other._parts:
            self.update(features, index)
        return self

    def gathered(self) -> Tensor:
        """[n, D] float32 of all ranks, ordered by sample number; every rank calls.

        Raises ValueError if a number came twice: an image that counts double is a wrong number.
        """
        index, features = map(_joined, self.state_dict().values())
        order = index.argsort()
        index = index[order]
        if (index[1:] == index[:-1]).any():
            twice = int(index[1:][index[1:] == index[:-1]][0])
            raise InputError(f"sample {twice} was kept twice; expected each sample number once")
        return features[order]


def _joined(rows: Tensor) -> Tensor:
    """Rows of all ranks, whose numbers of rows may differ."""
    if distributed.world_size() == 1:
        return rows
    counts = distributed.gather(torch.tensor([len(rows)])).tolist()
    longest = max(counts)
    padded = rows.new_zeros((longest, *rows.shape[1:]))
    padded[: len(rows)] = rows
    parts = distributed.gather(padded).split(longest) if longest else [rows] * len(counts)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
