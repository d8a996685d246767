"""Frames of a video decoded with torchcodec, where it is installed and finds FFmpeg's libraries.

It is told the index and scans nothing. A frame counts only if it has the time that the index says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from vistok.core.errors import InputError
from vistok.data.decode.video.probe import Probe

_TOGETHER = 32_000_000  # pixels that are decoded at once


def version() -> tuple[str, str]:
    """(name and version, "") or ("", why it cannot be used)."""
    try:
        import torchcodec
        from torchcodec.decoders import VideoStreamMetadata
    except ModuleNotFoundError:
        return "", "torchcodec is not installed"
    except Exception as error:  # a library that is missing or does not fit: RuntimeError, OSError
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return "", f"torchcodec does not load ({lines[0] if lines else type(error).__name__})"
    if "rotation" not in getattr(VideoStreamMetadata, "__dataclass_fields__", {}):
        return "", f"torchcodec {torchcodec.__version__} is too old to turn frames upright"
    return f"torchcodec {torchcodec.__version__}", ""


def by_torchcodec(path: str, index: Probe, wanted: np.ndarray) -> Iterator[np.ndarray]:
    """The frames `wanted` (numbers, rising), [H, W, 3] uint8, from the key frame before them on."""
    from torchcodec.decoders import VideoDecoder

    if not index.timed:
        raise InputError("it has no times by which to find frames: use decoder=auto or pyav")
    if len(index.sizes) > 1:  # it would stretch all to the size of the first
        raise InputError("its frames change their size: use decoder=auto or pyav")
    first = index.key(int(wanted[0]))
    here = range(first, int(wanted[-1]) + 1)
    keys = set(index.keys.tolist())
    mapping = [
        {
            "pts": int(index.pts[i]),
            "duration": int(index.durations[i]),
            "key_frame": int(i in keys or i == first),
        }
        for i in here
    ]
    decoder = VideoDecoder(
        path,
        stream_index=index.stream,
        dimension_order="NHWC",
        num_ffmpeg_threads=1,
        custom_frame_mappings=json.dumps({"frames": mapping}),
    )
    step = max(1, _TOGETHER // (index.size[0] * index.size[1]))
    for start in range(0, len(wanted), step):
        yield from _checked(decoder, index, wanted[start : start + step], first)


def _checked(decoder: Any, index: Probe, wanted: np.ndarray, first: int) -> Iterator[np.ndarray]:
    """Frames with the times they should have; one by one if they do not decode together."""
    try:
        parts = [decoder.get_frames_at((wanted - first).tolist())]
    except Exception:
        if len(wanted) == 1:
            raise
        for frame in wanted:
            yield from _checked(decoder, index, frame[None], first)
        return
    for part in parts:
        expected = index.pts[wanted] * float(index.unit)
        off = np.abs(part.pts_seconds.numpy() - expected).max()
        if off > float(index.unit) / 2 + 1e-6:
            raise InputError(f"torchcodec found another frame, {off:.3f} s away")
        yield from part.data.numpy()
