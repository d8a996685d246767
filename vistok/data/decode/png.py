"""PNG files where Pillow alone does not do: large metadata, and color keys of other than 8 bits.

A PNG's metadata are chunks of their own. Pillow unpacks all of them, and refuses the image where
one is larger than 1 MiB (tools that generate images store whole workflows in them), damaged, or
packed in an unknown way. So chunks without bearing on the pixels are taken out before Pillow sees
the file, but for those that may hold an orientation, up to a limit.

A color key (`tRNS`) names the sample values of transparent pixels as they are stored, of 1, 2, 4, 8
or 16 bits; Pillow compares it with 8-bit values.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.PngImagePlugin import PngImageFile

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXELS = (b"tRNS", b"acTL", b"fcTL", b"fdAT")  # chunks that need not be there and matter
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_ORIENTED = (b"Raw profile type exif", b"XML:com.adobe.xmp")  # keys of texts
_TEXT_BYTES = 16 * 2**20  # most that is unpacked of the texts of one file
_ANCILLARY = 0x20  # bit of the first letter of a chunk's type
_GRAY, _RGB = 0, 2


def without_metadata(data: bytes) -> bytes:
    """The file without metadata, but for orientations. What is damaged stays for Pillow to judge.

    Metadata end where the file is cut off: a chunk that is not whole is not taken out.
    """
    parts: list[bytes] = []
    start = at = len(SIGNATURE)
    room = _TEXT_BYTES
    while at + 12 <= len(data):
        (size,), kind = struct.unpack_from(">I", data, at), data[at + 4 : at + 8]
        end = at + 12 + size
        if end > len(data) or not kind.isalpha():
            break
        if kind[0] & _ANCILLARY and not _matters(kind, data, at, end):
            parts.append(data[start:at])
            if kind in _TEXTS and (text := _oriented(kind, data[at + 8 : end - 4], room)):
                room -= len(text)
                parts.append(text)
            start = end
        at = end
    if not parts:
        return data
    return b"".join([SIGNATURE, *parts, data[start:]])


def transparent(image: PngImageFile, data: bytes) -> np.ndarray | None:
    """[H, W] bool: pixels of the color key; None if the image has none, or no gray or RGB mode.

    Args:
        image: `data`, decoded. Its 8-bit samples of 16-bit RGB lack the lower halves, which are
            decoded again.
    """
    key = image.info.get("transparency")
    if key is None or data[12:16] != b"IHDR" or data[25] not in (_GRAY, _RGB):
        return None
    depth, color = data[24], data[25]
    pixels = np.asarray(image)
    if depth == 1:  # Pillow made the key 0 or 255, and the pixels bool
        return pixels == bool(key)
    largest = 2**depth - 1
    if color == _RGB:
        stored = pixels if depth == 8 else pixels.astype(np.uint16) << 8 | _lower(data)
        return (stored == np.array(key, np.uint16) & largest).all(axis=-1)
    scale = 255 // largest if depth < 8 else 1  # of Pillow, which makes samples of 2 and 4 bits 8
    return pixels == (key & largest) * scale


def _lower(data: bytes) -> np.ndarray:
    """[H, W, 3] uint8: the lower bytes of an image of 16-bit RGB."""
    from PIL import PngImagePlugin

    image = PngImagePlugin.PngImageFile(io.BytesIO(without_metadata(data)))
    # Read as if the lower byte came first, so that it is the one that Pillow keeps.
    image.tile = [tile._replace(args="RGB;16L") for tile in image.tile]
    return np.asarray(image)


def _matters(kind: bytes, data: bytes, start: int, end: int) -> bool:
    """True if Pillow should see a chunk that need not be there; EXIF only if it is undamaged."""
    if kind == b"eXIf":
        return zlib.crc32(data[start + 4 : end - 4]).to_bytes(4, "big") == data[end - 4 : end]
    return kind in _PIXELS


def _oriented(kind: bytes, body: bytes, room: int) -> bytes | None:
    """A text chunk that may hold an orientation, unpacked; None if it is another, or too large."""
    key, _, rest = body.partition(b"\0")
    if key not in _ORIENTED:
        return None
    text: bytes | None = rest
    if kind == b"zTXt":  # method, text
        kind, text = b"tEXt", _unpacked(rest[1:], room) if rest[:1] == b"\0" else None
    elif kind == b"iTXt":  # packed?, method, language, 0, translated key, 0, text
        names = rest[2:].split(b"\0", 2)
        if len(names) < 3:
            return None
        text = names[2] if rest[0] == 0 else _unpacked(names[2], room) if rest[1] == 0 else None
        if text is not None:
            text = b"\0\0\0\0" + text
    if text is None or len(text) > room:
        return None
    body = key + b"\0" + text
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _unpacked(packed: bytes, room: int) -> bytes | None:
    """The text of a packed chunk; None if it is damaged or longer than `room` bytes."""
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(packed, room)
    except zlib.error:
        return None
    return None if unpacker.unconsumed_tail else text
