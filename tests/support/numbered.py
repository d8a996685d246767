"""Videos whose frames carry their number in 6 blocks at the top left, made by PyAV.

Block i is white if bit i of the number is set; the kinds are those of `shared/data/reported`.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SIZE = (48, 64)  # (H, W)
_NOT_CODED = bytes.fromhex("000001b65100")  # an MPEG-4 picture that repeats the one before it


def picture(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """[H, W, 3] uint8: the blocks, on a background that moves with the number."""
    height, width = size
    pixels = np.full((height, width, 3), 40, np.uint8)
    pixels[:, number % width :][:, :8] = (220, 40, 40)
    side = height // 6
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


def encoded(
    numbers: Iterable[int],
    codec: str = "libx264",
    size: tuple[int, int] = SIZE,
    container: str = "mp4",
    **options: str,
) -> tuple[list[av.Packet], av.VideoStream]:
    """(packets, their stream) of pictures at 25 frames per second, in the order of decoding."""
    import io

    file = av.open(io.BytesIO(), "w", format=container)
    stream = file.add_stream(codec, rate=25)
    stream.height, stream.width = size
    stream.pix_fmt = "yuv420p"
    stream.options = {"g": "12", "bf": "2", "threads": "1", **options}
    packets = []
    for place, number in enumerate(numbers):
        frame = av.VideoFrame.from_ndarray(picture(number, size), format="rgb24")
        frame.pts, frame.time_base = place, Fraction(1, 25)
        packets += stream.encode(frame)
    packets += stream.encode()
    return packets, stream


def written(
    path: Path, numbers: Iterable[int] = range(40), codec: str = "libx264", **options
) -> Path:
    """A file of pictures; `options`: of the encoder, `muxer`: of the container, `times`: of each
    picture, in 1/25 s, default 0, 1, 2, ...; `size` of the pictures."""
    muxer, size = options.pop("muxer", {}), options.pop("size", SIZE)
    numbers = list(numbers)
    times = options.pop("times", range(len(numbers)))
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=options.pop("format", None), options=muxer) as file:
        stream = file.add_stream(codec, rate=25)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.options = {"g": "12", "bf": "2", "threads": "1", **options}
        for time, number in zip(times, numbers, strict=True):
            frame = av.VideoFrame.from_ndarray(picture(number, size), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path
