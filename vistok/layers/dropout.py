"""Network dropout whose draws belong to samples, like all other draws.

torch's own dropout reads one stream of numbers per process: how a batch is split over processes
and micro-batches would decide which activations are dropped. Here a sample's mask is a function of
the sample's key and of the layer alone. The training step gives the keys (`keyed`); without any, as
in a user's own training loop, the layer is torch's dropout.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vistok.core.rng import Rng


def _signed(word: int) -> int:
    """A 64-bit word as torch's int64 holds it."""
    return word - 2**64 if word >= 2**63 else word


# SplitMix64 (Steele, Lea and Flood 2014): the step of its counter, and the factors of its mixing.
_STEP = _signed(0x9E3779B97F4A7C15)
_FACTORS = (_signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB))
_LEVELS = 2**16  # a number of 64 bits serves four activations


class Dropout(nn.Module):
    """Zeroes a share `p` of the activations in training and scales the others up to keep the mean.

    x [B, ...] -> [B, ...]. Where the first dimension holds several rows of a sample (frames), they
    lie together. A layer that runs twice in a step drops the same places twice.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.keys: Tensor | None = None  # [B] int64, see `keyed`

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        if self.keys is None:
            return F.dropout(x, self.p)
        drop = _dropped_levels(self.p)
        mask = kept(self.keys, x.numel() // len(self.keys), drop).reshape(x.shape)
        return x * mask * (_LEVELS / (_LEVELS - drop))

    def extra_repr(self) -> str:
        return f"p={self.p}"


class DropPath(Dropout):
    """Stochastic depth (arXiv 1603.09382): zeroes whole samples of a residual branch with
    probability `p` in training and scales the others up to keep the mean.

    x [B, ...] -> [B, ...]; the rows of a sample are zeroed together.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        if self.keys is None:
            return x * F.dropout(x.new_ones(len(x)), self.p).view(-1, *[1] * (x.ndim - 1))
        drop = _dropped_levels(self.p)
        mask = kept(self.keys, 1, drop) * (_LEVELS / (_LEVELS - drop))  # [samples, 1]
        mask = mask.expand(-1, len(x) // len(mask)).reshape(-1, *[1] * (x.ndim - 1))
        return x * mask.to(x.dtype)


def _dropped_levels(p: float) -> int:
    """The share p in steps of 1/65536; never none and never all."""
    return min(max(round(p * _LEVELS), 1), _LEVELS - 1)


# One operator to torch.compile: of its parts Inductor would make kernels that overflow (products of
# places) or write past their end (the view of 64-bit words as four of 16 bits).
@torch.library.custom_op(
    "vistok::kept", mutates_args=(), schema="(Tensor keys, int count, int drop) -> Tensor"
)
def kept(keys: Tensor, count: int, drop: int) -> Tensor:
    """[B, count] bool: False with probability drop / 65536; row b depends on keys[b] alone.

    Args:
        keys: [B] int64, any numbers.
    """
    places = torch.arange(1, -(-count // 4) + 1, device=keys.device)
    numbers = splitmix64(keys[:, None] + places * _STEP)
    return numbers.view(torch.int16)[:, :count] >= drop - _LEVELS // 2


@kept.register_fake
def _(keys: Tensor, count: int, drop: int) -> Tensor:
    return keys.new_empty(len(keys), count, dtype=torch.bool)


def splitmix64(x: Tensor) -> Tensor:
    """The output function of SplitMix64, on 64-bit words held as int64; products wrap around."""
    x = (x ^ _shifted(x, 30)) * _FACTORS[0]
    x = (x ^ _shifted(x, 27)) * _FACTORS[1]
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """x >> bits of unsigned words: zeros come in, not copies of the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def layers_of(modules: Mapping[str, nn.Module]) -> dict[str, Dropout]:
    """The layers that drop anything, by their path."""
    return {
        f"{name}.{path}": layer
        for name, module in modules.items()
        for path, layer in module.named_modules()
        if isinstance(layer, Dropout) and layer.p
    }


@contextmanager
def keyed(
    layers: Mapping[str, Dropout], rng: Rng, index: Tensor, device: torch.device
) -> Iterator[None]:
    """Inside the block, `layers` drop what (seed, step, sample, layer) say.

    Args:
        rng: of the seed and the step. index: [B] int64 on the CPU, of the samples in the batch.
    """
    if not layers:
        yield
        return
    samples = torch.tensor([int(rng.generator(i).integers(2**63)) for i in index.tolist()])
    salts = torch.tensor([_salt(name) for name in layers])
    keys = salts[:, None] + samples
    if device.type == "cuda":
        keys = keys.pin_memory()
    for layer, own in zip(layers.values(), keys.to(device, non_blocking=True), strict=True):
        layer.keys = own
    try:
        yield
    finally:
        for layer in layers.values():
            layer.keys = None


def _salt(name: str) -> int:
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
