"""JPEG files without the metadata that Pillow reads and no pixel depends on.

Pillow reads profiles, previews, notes and densities of a JPEG when it opens it, and refuses the
image where one of them is damaged; decoders do not look at them.
"""

from __future__ import annotations

SIGNATURE = b"\xff\xd8\xff"
_NOTES = (0xFE, *range(0xE0, 0xF0))  # comments and application data
# Application data that matter: (marker, how they begin, bytes from which on decoders heed them).
_KEPT = (
    (0xE0, b"JFIF\0", 14),  # colors are YCbCr
    (0xEE, b"Adobe", 12),  # which colors they are
    (0xE1, b"Exif\0\0", 0),  # orientation
    (0xE1, b"http://ns.adobe.com/xap/1.0/\0", 0),  # the same in XMP
)


def without_metadata(data: bytes) -> bytes:
    """The file without metadata, but for colors and orientations.

    What is damaged so that segments cannot be followed stays as it is, for Pillow to judge.
    """
    parts: list[bytes] = []
    start, at = 0, 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # filling
            at += 1
            continue
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        end = at + 2 + size
        if marker == 0xDA or marker < 0xC0 or size < 2 or end > len(data):  # pixels, or no segment
            break
        if marker in _NOTES and not _matters(marker, data[at + 4 : end]):
            parts.append(data[start:at])
            start = end
        at = end
    return b"".join([*parts, data[start:]]) if parts else data


def _matters(marker: int, body: bytes) -> bool:
    return any(
        marker == kind and body.startswith(begin) and len(body) >= least
        for kind, begin, least in _KEPT
    )
