"""Token codes -> bytes by a range coder (constriction), and exactly back.

Two models of the same kind, frequencies of each code at each position:
- adaptive: one stream for a whole set. Images are coded in groups (16, then a quarter of those
  before); the frequencies of the images that came before code the next group, so the receiver
  learns what the sender learns and no table is sent.
- static: each image alone, with frequencies of other (training) images that both sides know,
  as both sides of a JPEG know its default tables.

A position's frequencies are smoothed towards those of all positions, and these towards equal ones,
so that every code can be coded. Letters: N images, L positions, F factors, K codes of a digit.
"""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from vistok.core.errors import InputError, UserError
from vistok.tokens import TokenSpec

_JOINT = 2**16  # codes up to which all factors of a position are one symbol
_LOW = 2**12  # a larger factor is several digits; values of each but the last
_FIRST, _SHARE = 16, 4  # images of the first group; a group is 1/4 of all before it


class CoderMissing(UserError, ImportError):
    """The range coder is not installed; the message is one line."""


@dataclass(frozen=True)
class Digits:
    """How a position's factors become symbols: one of all, or one or more of each factor."""

    vocab: tuple[int, ...]

    @property
    def joint(self) -> bool:
        return math.prod(self.vocab) <= _JOINT

    @property
    def sizes(self) -> tuple[int, ...]:
        """K of each digit."""
        if self.joint:
            return (math.prod(self.vocab),)
        return tuple(k for size in self.vocab for k in _digits(size))

    def split(self, indices: np.ndarray) -> np.ndarray:
        """[N, L, F] -> symbols [N, L, digits] int32."""
        wide = np.asarray(indices, np.int64)
        if self.joint:
            code = np.ravel_multi_index(tuple(np.moveaxis(wide, -1, 0)), self.vocab)
            return code[..., None].astype(np.int32)
        parts = []
        for factor, size in enumerate(self.vocab):
            rest = wide[..., factor]
            for _ in _digits(size)[1:]:
                parts.append(rest % _LOW)
                rest = rest // _LOW
            parts.append(rest)
        return np.stack(parts, -1).astype(np.int32)

    def join(self, symbols: np.ndarray) -> np.ndarray:
        """The inverse: [N, L, digits] -> [N, L, F] int64."""
        wide = np.asarray(symbols, np.int64)
        if self.joint:
            return np.stack(np.unravel_index(wide[..., 0], self.vocab), -1)
        parts, place = [], 0
        for size in self.vocab:
            count = len(_digits(size))
            own = wide[..., place : place + count]
            parts.append((own * _LOW ** np.arange(count)).sum(-1))
            place += count
        return np.stack(parts, -1)


def _digits(size: int) -> tuple[int, ...]:
    """Sizes of the digits of a factor, lowest first; a table of frequencies is as large as one."""
    return (size,) if size <= _JOINT else (_LOW, *_digits(-(-size // _LOW)))


class Frequencies:
    """Counts of each symbol of each digit at each position."""

    def __init__(self, spec: TokenSpec) -> None:
        self.digits = Digits(spec.vocab)
        self.counts = [np.zeros((spec.length, k), np.int64) for k in self.digits.sizes]

    def add(self, symbols: np.ndarray, positions: Sequence[int]) -> None:
        """Count symbols [N, len(positions), digits]."""
        for digit, counts in enumerate(self.counts):
            for place, position in enumerate(positions):
                seen = symbols[:, place, digit]
                counts[position] += np.bincount(seen, minlength=counts.shape[1])

    @classmethod
    def of(cls, spec: TokenSpec, indices: Tensor) -> Frequencies:
        """Frequencies of indices [N, L, F]."""
        known = cls(spec)
        known.add(known.digits.split(indices.numpy()), range(spec.length))
        return known

    def models(self, positions: Sequence[int], power: float = 0.5) -> list[list[Any]]:
        """The range coder's model of each position and digit.

        Args:
            power: the frequencies of all positions weigh as much as K**power images.
        """
        coder = range_coder()
        found: list[list[Any]] = [[] for _ in positions]
        for counts in self.counts:
            size = counts.shape[1]
            if size < 2:  # nothing to say
                for one in found:
                    one.append(None)
                continue
            total = counts[list(positions)].sum(0)
            anywhere = (total + 0.5) / (total.sum() + 0.5 * size)
            weight = size**power  # of the other positions, in images
            for place, position in enumerate(positions):
                own = counts[position]
                share = (own + weight * anywhere) / (own.sum() + weight)
                found[place].append(coder.model.Categorical(share, perfect=False))
        return found


def range_coder() -> Any:
    """constriction's `stream`; CoderMissing says how to get it."""
    try:
        import constriction
    except ImportError:
        raise CoderMissing(
            "entropy coding needs the package constriction: pip install 'vistok[coding]'"
        ) from None
    return constriction.stream


def coder_version() -> str | None:
    """Version of the range coder; None if it is not installed."""
    try:
        return importlib.metadata.version("constriction")
    except importlib.metadata.PackageNotFoundError:
        return None


def encode_set(spec: TokenSpec, indices: Tensor, positions: Sequence[int]) -> bytes:
    """Adaptive: `positions` of all images' indices [N, L, F] as one stream."""
    known = Frequencies(spec)
    symbols = known.digits.split(indices.numpy())[:, list(positions)]
    encoder = range_coder().queue.RangeEncoder()
    for start, stop in _groups(len(symbols)):
        models = known.models(positions)
        part = np.ascontiguousarray(symbols[start:stop].transpose(1, 2, 0))
        for own, rows in zip(models, part, strict=True):
            for model, row in zip(own, rows, strict=True):
                if model is not None:
                    encoder.encode(row, model)
        known.add(symbols[start:stop], positions)
    return encoder.get_compressed().astype("<u4").tobytes()


def decode_set(spec: TokenSpec, data: bytes, count: int, positions: Sequence[int]) -> np.ndarray:
    """The inverse: indices [count, len(positions), F] int64."""
    known, groups = Frequencies(spec), []
    decoder = range_coder().queue.RangeDecoder(_words(data))
    for start, stop in _groups(count):
        part = np.zeros((len(positions), len(known.counts), stop - start), np.int32)
        for own, rows in zip(known.models(positions), part, strict=True):
            for digit, model in enumerate(own):
                if model is not None:
                    rows[digit] = decoder.decode(model, stop - start)
        groups.append(part.transpose(2, 0, 1))
        known.add(groups[-1], positions)
    return known.digits.join(np.concatenate(groups))


class ImageCoder:
    """Static: each image's codes alone, by frequencies that both sides know."""

    def __init__(self, known: Frequencies, positions: Sequence[int]) -> None:
        self.digits = known.digits
        self.models = known.models(positions)
        self.positions = list(positions)

    def encode(self, indices: Tensor) -> list[bytes]:
        """[N, L, F] -> one string per image, in whole words of 4 bytes."""
        stream, strings = range_coder(), []
        for image in self.digits.split(indices.numpy())[:, self.positions].tolist():
            encoder = stream.queue.RangeEncoder()
            for own, row in zip(self.models, image, strict=True):
                for model, symbol in zip(own, row, strict=True):
                    if model is not None:
                        encoder.encode(symbol, model)
            strings.append(encoder.get_compressed().astype("<u4").tobytes())
        return strings

    def decode(self, strings: Sequence[bytes]) -> np.ndarray:
        """The inverse: [N, len(positions), F] int64."""
        stream = range_coder()
        symbols = np.zeros((len(strings), len(self.positions), len(self.digits.sizes)), np.int32)
        for image, data in enumerate(strings):
            decoder = stream.queue.RangeDecoder(_words(data))
            for place, own in enumerate(self.models):
                for digit, model in enumerate(own):
                    if model is not None:
                        symbols[image, place, digit] = decoder.decode(model)
        return self.digits.join(symbols)


def _groups(count: int) -> Iterator[tuple[int, int]]:
    start = 0
    while start < count:
        stop = min(count, start + max(_FIRST, start // _SHARE))
        yield start, stop
        start = stop


def _words(data: bytes) -> np.ndarray:
    if len(data) % 4:
        raise InputError(f"{len(data)} bytes of coded tokens: expected a multiple of 4")
    return np.frombuffer(data, "<u4").astype(np.uint32)
