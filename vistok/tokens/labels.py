"""The label of a .vtk file: the name of the file that was encoded, and the tiles of a larger image.

bytes  content
1      1: a name follows, 2: tiles follow, 4: windows follow, 8: a stream follows
...    the name: its number of bytes, then UTF-8 (of other bytes of file names: as they are)
...    the tiles: height and width of the image, overlap, number of tiles
...    the windows or blocks of a stream: frames of the clip, overlap, number of them

Numbers have 7 bits in each byte. A name is for joining captions and the like; no command opens or
writes the place that it says.
"""

from __future__ import annotations

from dataclasses import dataclass

from vistok.core.errors import InputError
from vistok.tokens.packing import taken, varint, varints
from vistok.tokens.tokens import Tokens

_NAME, _TILES, _CHUNKS, _STREAM = 1, 2, 4, 8
_LONGEST_NAME = 4096  # bytes: no system has longer paths
LONGEST = 4 + 2 + 1 + 5 + _LONGEST_NAME + 4 * 5  # bytes of a file's beginning that hold its label
_MOST_TILES = 2**17
_MOST_FRAMES = 2**24


@dataclass(frozen=True)
class Tiled:
    """Facts about an image that was encoded tile by tile; `vistok.tiling` knows their places."""

    height: int
    width: int
    overlap: int  # pixels that neighboring tiles share
    count: int

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.count) < 1 or self.count > _MOST_TILES:
            raise InputError(
                f"{self.count} tiles of {self.height}x{self.width} pixels; expected 1 or more of "
                f"each and at most {_MOST_TILES:,} tiles"
            )


@dataclass(frozen=True)
class Chunked:
    """Facts about a clip that was encoded in windows or, of causal tokenizers, in one stream.

    `vistok.chunking` knows the places of windows; the parts of a stream are its blocks of tokens.
    """

    frames: int  # of the clip
    overlap: int  # frames that neighboring windows share
    count: int
    stream: bool = False

    def __post_init__(self) -> None:
        if min(self.frames, self.count) < 1 or self.frames > _MOST_FRAMES:
            raise InputError(
                f"{self.count} windows of a clip of {self.frames} frames; expected 1 or more of "
                f"each and at most {_MOST_FRAMES:,} frames"
            )
        if self.count > self.frames:
            raise InputError(f"{self.count} windows of a clip of {self.frames} frames: too many")


@dataclass(frozen=True)
class Record:
    """Content of a .vtk file."""

    tokens: Tokens  # of one image or clip; of each tile, row by row, or window, if it has them
    name: str | None = None  # of the file that was encoded, relative to the folder that was named
    tiles: Tiled | None = None
    chunks: Chunked | None = None


@dataclass(frozen=True)
class Label:
    """The label of a file; one without content is not written."""

    name: str | None = None
    tiles: Tiled | None = None
    chunks: Chunked | None = None

    @property
    def count(self) -> int | None:
        """Tiles or windows of the file; None for one image or clip as it is."""
        parts = self.tiles or self.chunks
        return None if parts is None else parts.count

    def __post_init__(self) -> None:
        if self.name is not None and len(_bytes(self.name)) > _LONGEST_NAME:
            raise InputError(f"a name of more than {_LONGEST_NAME} bytes; give a shorter one")

    def __bool__(self) -> bool:
        return self.name is not None or self.count is not None

    def write(self) -> bytes:
        flags = _NAME * (self.name is not None) | _TILES * (self.tiles is not None)
        if self.chunks is not None:
            flags |= _STREAM if self.chunks.stream else _CHUNKS
        out = bytes([flags])
        if self.name is not None:
            out += varint(len(_bytes(self.name))) + _bytes(self.name)
        if self.tiles is not None:
            one = self.tiles
            for number in (one.height, one.width, one.overlap, one.count):
                out += varint(number)
        if self.chunks is not None:
            for number in (self.chunks.frames, self.chunks.overlap, self.chunks.count):
                out += varint(number)
        return out

    @classmethod
    def read(cls, data: bytes) -> tuple[Label, bytes]:
        """A label and the bytes behind it; InputError if it is damaged or cut off."""
        (flags,), at = taken(data, 0, 1)
        parts = flags & ~_NAME
        if not flags or parts not in (0, _TILES, _CHUNKS, _STREAM):
            raise InputError(
                f"label {flags}; expected 1..5, 8 or 9: use a newer vistok, if the file is "
                "not damaged"
            )
        name = tiles = chunks = None
        if flags & _NAME:
            (size,), at = varints(data, at, 1)
            if size > _LONGEST_NAME:
                raise InputError(f"a name of {size} bytes; expected {_LONGEST_NAME} or fewer")
            text, at = taken(data, at, size)
            name = text.decode("utf-8", "surrogateescape")
        if flags & _TILES:
            numbers, at = varints(data, at, 4)
            tiles = Tiled(*numbers)
        if parts in (_CHUNKS, _STREAM):
            numbers, at = varints(data, at, 3)
            chunks = Chunked(*numbers, stream=parts == _STREAM)
        return cls(name, tiles, chunks), data[at:]


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
