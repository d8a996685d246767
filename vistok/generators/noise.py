"""Uniform numbers by the million, keyed by (seed, part, step, sample) and made on the device.

`Rng` makes its numbers on the CPU. That is too slow where a sampler draws one for every code of a
vocabulary at every position and step: there the CPU makes one key per sample, and SplitMix64 the
numbers. All devices make the same ones.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vistok.core.rng import Rng
from vistok.layers.dropout import splitmix64

_STEP = 0x9E3779B97F4A7C15 - 2**64  # of SplitMix64's counter, as an int64
_BITS = 24  # of a float32 in [0, 1), as numpy makes them


def uniform_on(device: torch.device, rng: Rng, index: Tensor, shape: tuple[int, ...]) -> Tensor:
    """[B, *shape] float32 in [0, 1) of the samples `index` [B]."""
    keys = torch.tensor([int(rng.generator(i).integers(2**63)) for i in index.tolist()])
    count = math.prod(shape)
    places = torch.arange(1, -(-count // 2) + 1, device=device)  # a word serves two numbers
    words = splitmix64(keys.to(device)[:, None] + places * _STEP).view(torch.int32)[:, :count]
    return ((words & (2**_BITS - 1)).float() * 2.0**-_BITS).view(len(index), *shape)
