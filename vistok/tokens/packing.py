"""Tokens as bytes: a small header, then ceil(log2 V) bits per factor, packed.

Header: version and flags (1 byte), fingerprint of the spec (2 bytes), then, where flagged, kept
lengths and (T, H, W) as variable-length integers, fps as a double, and the first 4 bytes of the
hash of the weights that made the tokens.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING

import numpy as np

from vistok.core.errors import InputError

if TYPE_CHECKING:
    from vistok.tokens.spec import TokenSpec

VERSION = 1
MADE_BY = 8  # hexadecimal digits that a header keeps of the hash of the weights
_KEEP, _SIZE, _FPS, _MADE_BY = 1, 2, 4, 8
_NUMBER = 5  # bytes of a variable-length integer, of 7 bits each


class Header:
    """Header of one sample's packed codes."""

    def __init__(
        self,
        fingerprint: int,
        keep: list[int] | None = None,
        size: tuple[int, int, int] | None = None,
        fps: float | None = None,
        made_by: str | None = None,
    ) -> None:
        self.fingerprint, self.keep, self.size, self.fps = fingerprint, keep, size, fps
        self.made_by = made_by

    def write(self) -> bytes:
        flags = _KEEP * (self.keep is not None)
        flags |= _SIZE * (self.size is not None) | _FPS * (self.fps is not None)
        flags |= _MADE_BY * (self.made_by is not None)
        out = bytes([VERSION << 4 | flags]) + self.fingerprint.to_bytes(2, "little")
        for number in (*(self.keep or ()), *(self.size or ())):
            out += varint(number)
        out += b"" if self.fps is None else struct.pack("<d", self.fps)
        return out + (b"" if self.made_by is None else bytes.fromhex(self.made_by[:MADE_BY]))

    @classmethod
    def read(cls, data: bytes, lengths: int) -> tuple[Header, bytes]:
        """The header and the bytes behind it; `lengths`: how many kept lengths a prefix has.

        ValueError for another version, or a header that is damaged or cut off.
        """
        if len(data) < 3:
            raise InputError(f"{len(data)} bytes are too few for a header; is the file cut off?")
        if data[0] >> 4 != VERSION:
            raise InputError(f"header version {data[0] >> 4}; expected {VERSION}")
        flags = data[0] & 15
        header, at = cls(int.from_bytes(data[1:3], "little")), 3
        if flags & _KEEP:
            header.keep, at = varints(data, at, lengths)
        if flags & _SIZE:
            size, at = varints(data, at, 3)
            header.size = tuple(size)
        if flags & _FPS:
            number, at = taken(data, at, 8)
            header.fps = struct.unpack("<d", number)[0]
            if not (math.isfinite(header.fps) and header.fps > 0):
                raise InputError(f"{header.fps} frames per second in the header; it is damaged")
        if flags & _MADE_BY:
            made_by, at = taken(data, at, MADE_BY // 2)
            header.made_by = made_by.hex()
        return header, data[at:]


def prefixed(data: bytes) -> bool:
    """True for a header of kept lengths, whose number only the spec of the tokens tells."""
    return bool(data) and bool(data[0] & _KEEP)


def pack(digits: np.ndarray, bits: tuple[int, ...]) -> bytes:
    """[n, F] digits -> bytes: position by position, factor by factor, lowest bit first."""
    columns = [
        digits[:, f, None].astype(np.int64) >> np.arange(count) & 1 for f, count in enumerate(bits)
    ]
    flat = np.concatenate(columns, 1).astype(np.uint8).reshape(-1)
    return np.packbits(flat, bitorder="little").tobytes()


def unpack(data: bytes, positions: int, bits: tuple[int, ...]) -> np.ndarray:
    """The inverse: [positions, F] int64; ValueError unless the length is exactly right."""
    each = sum(bits)
    expected = -(-positions * each // 8)
    if len(data) != expected:
        raise InputError(f"{len(data)} bytes of codes; expected {expected}")
    packed = np.frombuffer(data, np.uint8)
    flat = np.unpackbits(packed, count=positions * each, bitorder="little")
    flat = flat.reshape(positions, each).astype(np.int64)
    columns = np.split(flat, np.cumsum(bits)[:-1], axis=1)
    return np.stack([(c << np.arange(c.shape[1])).sum(1) for c in columns], axis=1)


def varint(number: int) -> bytes:
    """A number from 0, 7 bits in each byte, lowest first."""
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def most_bytes(spec: TokenSpec) -> int:
    """The most bytes that one sample of these tokens takes, header and all."""
    numbers = 3 + (len(spec.blocks) if spec.prefix == "per_block" else 1)
    return 3 + numbers * _NUMBER + 8 + MADE_BY // 2 + -(-spec.bits // 8)


def taken(data: bytes, at: int, count: int) -> tuple[bytes, int]:
    """`count` bytes from place `at`, and the place behind them."""
    if len(data) < at + count:
        raise InputError("cut off inside the header")
    return data[at : at + count], at + count


def varints(data: bytes, at: int, count: int) -> tuple[list[int], int]:
    """`count` numbers from place `at`, and the place behind them."""
    numbers = []
    for _ in range(count):
        value = shift = 0
        while True:
            if shift == 7 * _NUMBER:  # a number without an end would take quadratic time
                raise InputError(
                    f"a number of more than {_NUMBER} bytes in the header; it is damaged"
                )
            (byte,), at = taken(data, at, 1)
            value, shift = value | (byte & 127) << shift, shift + 7
            if byte < 128:
                break
        numbers.append(value)
    return numbers, at
