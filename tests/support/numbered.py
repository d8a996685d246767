"""Videos whose frames carry their number in 6 blocks at the top left, made by PyAV.

Block i is white if bit i of the number is set, as in the files of `reported/video_kinds`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np

SIZE = (48, 64)  # (H, W)
_PICTURE = bytes.fromhex("000001b6")
_PACKED = bytes.fromhex("000001b2") + b"DivX503b1393p\0"  # by which decoders know packed B-frames
_NOT_CODED = bytes.fromhex("000001b65100")  # an MPEG-4 frame that only takes up its place


def frame_of(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """[H, W, 3] uint8: the blocks, and a bar that moves with the number."""
    pixels = np.full((*size, 3), 40, np.uint8)
    pixels[:, number % size[1] :][:, :8] = (220, 40, 40)
    side = size[0] // 6
    for bit in range(6):
        pixels[:side, bit * side : (bit + 1) * side] = 255 * (number >> bit & 1)
    return pixels


def numbers_of(frames: Iterable[np.ndarray]) -> list[int]:
    """The numbers that frames [H, W, 3] carry."""
    found = []
    for frame in frames:
        side = frame.shape[0] // 6
        blocks = np.asarray(frame, float)[:side, : 6 * side].reshape(side, 6, side, 3)
        bits = blocks.mean((0, 2, 3)) > 128
        found.append(int((bits << np.arange(6)).sum()))
    return found


def written(
    path: Path,
    numbers: Iterable[int] = range(40),
    codec: str = "libx264",
    *,
    times: Sequence[int] | None = None,
    size: tuple[int, int] = SIZE,
    format: str | None = None,
    muxer: dict[str, str] | None = None,
    **options: str,
) -> Path:
    """A file of frames, 25 per second, or at `times` in 1/25 s; `options` of the encoder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = list(numbers)
    with av.open(str(path), "w", format=format, options=muxer or {}) as file:
        for packet in _encoded(file, numbers, codec, times or range(len(numbers)), size, options):
            file.mux(packet)
    return path


def packets(
    numbers: Iterable[int],
    codec: str = "libx264",
    size: tuple[int, int] = SIZE,
    format: str = "mpegts",
    **options: str,
) -> tuple[list[av.Packet], Any]:
    """(packets in the order of decoding, their stream), for `muxed`."""
    file, numbers = av.open(BytesIO(), "w", format=format), list(numbers)
    found = list(_encoded(file, numbers, codec, range(len(numbers)), size, options))
    return found, file.streams.video[0]


def muxed(path: Path, packets: Iterable[tuple[bytes, int, int, bool]], stream: Any) -> Path:
    """A file of packets (data, pts, dts, is it a key frame), times in 1/25 s."""
    with av.open(str(path), "w") as file:
        out = file.add_stream_from_template(stream)
        for data, pts, dts, key in packets:
            packet = av.Packet(data)
            packet.pts, packet.dts, packet.is_keyframe = pts, dts, key
            packet.time_base, packet.stream = Fraction(1, 25), out
            file.mux(packet)
    return path


def plain(packets: Iterable[av.Packet], later: int = 0) -> list[tuple[bytes, int, int, bool]]:
    """Packets for `muxed`, `later` frames later."""
    return [(bytes(p), p.pts + later, p.dts + later, p.is_keyframe) for p in packets]


def packed(path: Path, count: int = 41, empty: int = 0) -> Path:
    """MPEG-4 with packed B-frames in AVI, as Xvid wrote it: each B-frame in the packet of the
    frame before it in the order of decoding, and in its place a frame without content.

    empty: such frames at the end, for which there is no frame at all.
    """
    made, stream = packets(range(count), "mpeg4", format="avi", bf="1", qmax="3")
    data: list[bytes] = []
    shown = -1
    for packet in made:
        late = packet.pts < shown  # a B-frame
        if late:
            data[-1] += bytes(packet)
        here = bytes(packet)
        if packet.is_keyframe:
            here = here.replace(_PICTURE, _PACKED + _PICTURE, 1)
        data.append(_NOT_CODED if late else here)
        shown = max(shown, packet.pts)
    data += [_NOT_CODED] * empty
    keys = [packet.is_keyframe for packet in made] + [False] * empty
    times = range(len(data))
    return muxed(path, zip(data, times, times, keys, strict=True), stream)


def remuxed(source: Path, path: Path, change: Callable[[av.Packet, int], None]) -> Path:
    """The packets of a file in another one; `change` is called with each and its place."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = old.streams.video[0]
        out = new.add_stream_from_template(stream)
        for place, packet in enumerate(p for p in old.demux(stream) if p.size):
            change(packet, place)
            packet.stream = out
            new.mux(packet)
    return path


def _encoded(
    file: Any,
    numbers: Sequence[int],
    codec: str,
    times: Sequence[int],
    size: tuple[int, int],
    options: dict[str, str],
) -> Iterable[av.Packet]:
    stream = file.add_stream(codec, rate=25)
    stream.height, stream.width = size
    stream.pix_fmt = "yuv420p"
    stream.options = {"g": "12", "bf": "2", "threads": "1", **options}
    for number, time in zip(numbers, times, strict=True):
        frame = av.VideoFrame.from_ndarray(frame_of(number, size), format="rgb24")
        frame.pts, frame.time_base = time, Fraction(1, 25)
        yield from stream.encode(frame)
    yield from stream.encode()
