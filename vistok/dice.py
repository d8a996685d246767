"""Dice: randomness thrown outside the arithmetic, keyed, and passed in.

Numbers are keyed by (seed, part, step, sample index), not streamed: the split into batches,
processes and workers and a resume cannot change them. `draws=None` is evaluation.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Per = Literal["sample", "batch"]


@dataclass(frozen=True)
class Draws:
    """The outcomes that stochastic parts obey; a field that is None was not thrown."""

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
        """Apply `function` to every tensor that was thrown."""
        thrown = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: function(v) for k, v in thrown.items() if isinstance(v, Tensor)})

    def to(self, device: torch.device | str) -> Draws:
        # What is not pinned is staged first, and staging may wait for the device.
        pin = torch.device(device).type == "cuda"
        return self.map(
            lambda tensor: (tensor.pin_memory() if pin else tensor).to(device, non_blocking=True)
        )

    def rows(self, start: int, stop: int) -> Draws:
        """The dice of samples start..stop of the batch (a micro-batch)."""
        return self.map(lambda tensor: tensor[start:stop])

    def join(self, other: Draws, owner: str = "") -> Draws:
        """Both; a field that both threw is an error, since two parts would fight over it."""
        mine = {f.name: getattr(self, f.name) for f in fields(self)}
        theirs = {f.name: getattr(other, f.name) for f in fields(other)}
        for name, value in theirs.items():
            if value is not None and mine[name] is not None:
                raise ValueError(
                    f"two regularizers throw '{name}' ({owner} is the second); keep one of them"
                )
        return replace(self, **{k: v for k, v in theirs.items() if v is not None})


class Rng:
    """Random numbers keyed by (seed, part, step, sample); Philox-4x64, one counter a sample.

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
        """A seed for torch's own generators, at the places that draw from them."""
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


@dataclass(frozen=True)
class Progress:
    """Where training stands: everything a schedule may depend on."""

    step: int  # optimiser steps done
    steps: int  # of how many
    epoch: float = 0.0  # passes over the data


def ramp(step: int, start: int, length: int) -> float:
    """0 before `start`, then linear to 1 over `length` steps (length 0: a jump)."""
    if step < start:
        return 0.0
    return 1.0 if length <= 0 else min(1.0, (step - start + 1) / length)


def warmup_cosine(step: int, steps: int, warmup: int, final: float) -> float:
    """Learning-rate factor: linear warm-up, then half a cosine from 1 down to `final`."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    share = min(1.0, (step - warmup) / max(1, steps - warmup))
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * share))


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
