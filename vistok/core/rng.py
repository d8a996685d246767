"""Random numbers keyed by (seed, part, step, sample), never streamed.

The split into batches, processes and workers and a resume cannot change them.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Per = Literal["sample", "batch"]


class Rng:
    """Random numbers keyed by (seed, part, step, sample); Philox-4x64, one counter per sample.

    `part` is any name ("nested_dropout", "views/train"); each call of a method starts again at
    the sample's first number, so a part that needs several asks for them in one call or takes
    `rng.child(name)`.
    """

    def __init__(self, seed: int, part: str = "", step: int = 0) -> None:
        self.seed, self.part, self.step = int(seed), part, int(step)
        digest = hashlib.blake2b(part.encode(), digest_size=8).digest()
        self._key = np.array(
            [self.seed & (2**64 - 1), int.from_bytes(digest, "little")], dtype=np.uint64
        )

    def child(self, name: str) -> Rng:
        return Rng(self.seed, f"{self.part}/{name}", self.step)

    def torch_seed(self) -> int:
        """A seed for torch's own generator, for code that draws from it."""
        return int(self.generator().integers(2**62))

    def generator(self, sample: int = 0) -> np.random.Generator:
        """NumPy's generator at the sample's first number, for data code."""
        # Two free low words leave 2**128 numbers to every (step, sample).
        counter = np.array([0, 0, self.step, int(sample)], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=self._key, counter=counter))

    def uniform(self, index: Tensor, shape: tuple[int, ...] = (), per: Per = "sample") -> Tensor:
        """[B, *shape] float32 in [0, 1); `per="batch"` gives every sample the same numbers."""
        if per == "batch":
            one = torch.from_numpy(self._floats(0, shape))
            return one.expand(len(index), *shape).clone()
        rows = [self._floats(i, shape) for i in index.tolist()]
        return torch.from_numpy(np.stack(rows)) if rows else torch.zeros((0, *shape))

    def normal(self, index: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
        """[B, *shape] float32, standard normal."""
        rows = [
            np.asarray(self.generator(i).standard_normal(shape, dtype=np.float32))
            for i in index.tolist()
        ]
        return torch.from_numpy(np.stack(rows)) if rows else torch.zeros((0, *shape))

    def integers(
        self, index: Tensor, high: int, shape: tuple[int, ...] = (), per: Per = "sample"
    ) -> Tensor:
        """[B, *shape] int64 uniform in 0..high-1."""
        return (self.uniform(index, shape, per).double() * high).long().clamp_(max=high - 1)

    def _floats(self, sample: int, shape: tuple[int, ...]) -> np.ndarray:
        return np.asarray(self.generator(sample).random(shape, dtype=np.float32))
