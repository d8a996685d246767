"""Made-up videos whose frames tell their number, and the decoders that tests run over."""

import av
import numpy as np
import pytest

from vistok.config.registry import build
from vistok.data import (
    Sample,
    VideoConfig,
)
from vistok.data.decode.video import torchcodec

HAS_TORCHCODEC = not torchcodec.version()[1]
DECODERS = [
    "auto",
    "pyav",
    pytest.param(
        "torchcodec",
        marks=pytest.mark.skipif(not HAS_TORCHCODEC, reason=torchcodec.version()[1] or "-"),
    ),
]
decoders = pytest.mark.parametrize("decoder", DECODERS)


def film(path, count=40, size=(48, 64), rate=25, codec="mpeg4", start=0, **options):
    """A video whose n-th frame is gray 6 * n on the left and the rest on the right."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=options.pop("format", None)) as file:
        stream = file.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.options = {"g": "12", "bf": "2", "qmin": "1", "qmax": "2", **options}
        stream.options |= {"sc_threshold": "1000000000"}  # key frames come by `g` alone
        for n in range(start, start + count):
            pixels = np.full((*size, 3), 6 * n % 240, np.uint8)
            pixels[:, size[1] // 2 :] = 240 - 6 * n % 240
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
    return path


def turned(path):
    """A copy of a film of 64x48 pixels that says that it is to be shown a quarter turned, as phones
    write it."""
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40  # of a version 0 box
    quarter = np.array([0, 65536, 0, -65536, 0, 0, 48 * 65536, 0, 1 << 30], ">i4")
    content[matrix : matrix + 36] = quarter.tobytes()
    copy = path.with_name("turned.mp4")
    copy.write_bytes(content)
    return copy


def numbers(pixels, axis=0) -> list[int]:
    """Which frames of `film` these are: [T, H, W, 3]."""
    gray = np.asarray(pixels, float)[:, :, : pixels.shape[2] // 2].mean((1, 2, 3))
    return np.round(gray / 6).astype(int).tolist()


def taken(sample: Sample) -> list[int]:
    return numbers(sample.pixels.permute(1, 2, 3, 0).numpy())


def open_video(split="train", **values):
    return build(VideoConfig(**{"size": 16, "frames": 4, **values})).open(split)
