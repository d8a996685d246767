"""Video files opened with PyAV: content sniffed, size bounded, one thread.

The kind of file is read from its content, never from its name; a playlist, which could name other
files and addresses, is refused with everything else that holds no frames itself.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from typing import Any

from vistok.core.errors import InputError
from vistok.core.regular_files import open_regular
from vistok.data.base import BadSample

PIXEL_LIMIT = 36_000_000  # of a frame; 8K has 35.4 million
ENDED = "the video ends early"
_TS = ((0, 188), (4, 192))  # a transport stream's packets begin with G; Blu-ray's after 4 bytes


def sniff(path: str | os.PathLike[str], name: str) -> None:
    """BadSample unless this is a regular file that begins like one that holds frames."""
    try:
        head = _head(path)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        reason = getattr(error, "strerror", None) or error
        raise BadSample(name, f"cannot be read ({reason})") from None
    if not head:
        raise BadSample(name, "the file is empty (0 bytes)")
    starts = (
        *(b"\x1aE\xdf\xa3", b"GIF8", b"\0\0\1\xba", b"\0\0\1\xb3", b"OggS", b"FLV\1"),
        b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
    )
    if (
        head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
        or head.startswith(starts)
        or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")
        or any(head[at : at + 1] == head[at + step : at + step + 1] == b"G" for at, step in _TS)
        or _inside_packet(head)
    ):
        return
    raise BadSample(
        name,
        f"not a video: it starts with {head[:8]!r}; expected MP4, MOV, WebM, MKV, AVI, MPEG, TS, "
        f"Ogg, FLV, WMV or GIF",
    )


def _head(path: str | os.PathLike[str]) -> bytes:
    with open_regular(path, "rb") as file:
        return file.read(1200)


def _inside_packet(head: bytes) -> bool:
    """True for a transport stream that begins inside a packet: the next ones are in place."""
    for _, step in _TS:
        at = head.find(b"G")
        while 0 <= at < step:
            if head[at : at + 4 * step + 1 : step] == b"GGGGG":
                return True
            at = head.find(b"G", at + 1)
    return False


def open_file(path: str | os.PathLike[str]) -> tuple[Any, Any]:
    """(container, its video stream or None); one thread."""
    import av

    # Named, where FFmpeg would have to guess: text may have its letters at these places too.
    kind = "mpegts" if _inside_packet(_head(path)) else None
    container = av.open(os.path.abspath(path), format=kind)
    stream = container.streams.best("video")
    if stream is not None and stream.codec_context is None:
        container.close()
        raise InputError("there is no decoder for its codec")
    if stream is not None:
        stream.thread_count, stream.thread_type = 1, "NONE"
        stream.codec_context.options = {"max_pixels": str(PIXEL_LIMIT)}
    return container, stream


def packets(container: Any, stream: Any) -> Iterator[tuple[int, Any]]:
    """(place, packet) of every packet with data; place: 0 for the first one of the stream.

    Empty packets are left out: to a decoder they mean the end, but AVI has them in the middle.
    """
    place = 0
    for packet in container.demux(stream):
        if packet.size:
            yield place, packet
            place += 1


def damaged(container: Any, packet: Any) -> bool:
    """True if a packet is cut off. A transport stream also marks those beside a joint, which may
    well be whole: there, it is left to the decoder to tell."""
    return packet.is_corrupt and container.format.name != "mpegts"


def decode_from(
    container: Any, stream: Any, start: int, breaks: Collection[int] = ()
) -> Iterator[Any]:
    """Frames as the decoder gives them, from the packet at place `start` on.

    The `pts` of a frame is the place of its packet: unlike times, places are always there and
    always distinct. The container must stand at its beginning. breaks: places at which the decoder
    gives out what it holds back and begins anew, at the next key frame.
    """
    waits = False
    for place, packet in packets(container, stream):
        if place < start:
            continue
        if damaged(container, packet):
            raise InputError(ENDED)
        if place in breaks and place > start:
            yield from stream.decode(None)
            stream.codec_context.flush_buffers()
            waits = True
        waits = waits and not packet.is_keyframe
        if not waits:
            packet.pts = place
            yield from stream.decode(packet)
    yield from stream.decode(None)


def reason(error: Exception) -> str:
    """The first line of an error of a demuxer or decoder."""
    text = getattr(error, "strerror", None) or str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # torchcodec begins with the place in its own source.
    return lines[0].rsplit(".cpp:", 1)[-1].lstrip("0123456789, ") if lines else type(error).__name__
