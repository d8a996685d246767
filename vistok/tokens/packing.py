"""Tokens as bytes: a small header, then ceil(log2 V) bits per factor, packed.

Header: version and flags (1 byte), fingerprint of the spec (2 bytes), then, where flagged, kept
lengths and (T, H, W) as variable-length integers and fps as a double.
"""

from __future__ import annotations

import struct

import numpy as np

from vistok.core.errors import InputError

VERSION = 1
_KEEP, _SIZE, _FPS = 1, 2, 4


class Header:
    """Header of one sample's packed codes."""

    def __init__(
        self,
        fingerprint: int,
        keep: list[int] | None = None,
        size: tuple[int, int, int] | None = None,
        fps: float | None = None,
    ) -> None:
        self.fingerprint, self.keep, self.size, self.fps = fingerprint, keep, size, fps

    def write(self) -> bytes:
        flags = _KEEP * (self.keep is not None)
        flags |= _SIZE * (self.size is not None) | _FPS * (self.fps is not None)
        out = bytes([VERSION << 4 | flags]) + self.fingerprint.to_bytes(2, "little")
        for number in (*(self.keep or ()), *(self.size or ())):
            out += _varint(number)
        return out + (b"" if self.fps is None else struct.pack("<d", self.fps))

    @classmethod
    def read(cls, data: bytes, lengths: int) -> tuple[Header, bytes]:
        """The header and the bytes behind it; `lengths`: how many kept lengths a prefix has.

        ValueError for another version, unknown flags, or a header that is cut off.
        """
        if len(data) < 3:
            raise InputError(f"{len(data)} bytes are too few for a header; is the file cut off?")
        if data[0] >> 4 != VERSION:
            raise InputError(f"header version {data[0] >> 4}; expected {VERSION}")
        flags = data[0] & 15
        if flags & ~(_KEEP | _SIZE | _FPS):
            raise InputError("unknown flags in the header; it is damaged")
        header, at = cls(int.from_bytes(data[1:3], "little")), 3
        if flags & _KEEP:
            header.keep, at = _varints(data, at, lengths)
        if flags & _SIZE:
            size, at = _varints(data, at, 3)
            header.size = tuple(size)
        if flags & _FPS:
            if len(data) < at + 8:
                raise InputError("cut off inside the header")
            header.fps, at = struct.unpack("<d", data[at : at + 8])[0], at + 8
        return header, data[at:]


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


def _varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def _varints(data: bytes, at: int, count: int) -> tuple[list[int], int]:
    """`count` numbers from place `at`, and the place behind them."""
    numbers = []
    for _ in range(count):
        value = shift = 0
        while True:
            if at >= len(data):
                raise InputError("cut off inside the header")
            byte, at = data[at], at + 1
            value, shift = value | (byte & 127) << shift, shift + 7
            if byte < 128:
                break
        numbers.append(value)
    return numbers, at
