"""PNG files written by hand, so that each bit of them is known."""

from __future__ import annotations

import struct
import zlib

import numpy as np


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    pixels: np.ndarray, depth: int, *, key: int | None = None, before: bytes = b"", behind=b""
) -> bytes:
    """Gray [H, W] or RGB [H, W, 3] samples of `depth` bits as a PNG.

    key: the sample of the transparent color, in each channel. before, behind: chunks that lie
    before or behind the pixels.
    """
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else 3
    rows = pixels.reshape(height, -1)
    if depth == 16:
        packed = rows.astype(">u2").view(np.uint8)
    elif depth == 8:
        packed = rows.astype(np.uint8)
    else:
        bits = (rows[..., None] >> np.arange(depth)[::-1]) & 1
        packed = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    lines = np.concatenate([np.zeros((height, 1), np.uint8), packed], axis=1)  # filter 0
    color = 0 if channels == 1 else 2
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)),
            before,
            chunk(b"tRNS", struct.pack(">H", key) * channels) if key is not None else b"",
            chunk(b"IDAT", zlib.compress(lines.tobytes())),
            behind,
            chunk(b"IEND", b""),
        )
    )
