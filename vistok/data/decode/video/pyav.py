"""Frames of a video decoded with PyAV, whose wheel brings FFmpeg's libraries.

From where decoding begins to the last frame wanted, each frame must be the one that the index names
next: a frame too few, too many or out of order is an error, never another frame in its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from vistok.core.errors import InputError
from vistok.data.decode.video import reading
from vistok.data.decode.video.probe import Probe
from vistok.data.decode.video.reading import decode_from, open_file

_SKIP = 8  # frames up to which decoding and discarding is cheaper than a seek


def by_pyav(path: str, index: Probe, wanted: np.ndarray) -> Iterator[np.ndarray]:
    """The frames `wanted` (numbers, rising), [H, W, 3] uint8.

    A run of them is read from each key frame that is worth a seek; what fails from there (seeks of
    some files go astray) is tried once more from the beginning of the file.
    """
    cuts = [i for i in range(1, len(wanted)) if index.key(int(wanted[i])) - wanted[i - 1] > _SKIP]
    for run in np.split(wanted, cuts):
        left = run.tolist()
        key = index.key(left[0])
        for start in (key, 0) if key else (0,):
            try:
                for pixels in _run(path, index, left, start):
                    left.pop(0)
                    yield pixels
                break
            except Exception:
                if not start:
                    raise


def _run(path: str, index: Probe, run: list[int], key: int) -> Iterator[np.ndarray]:
    """The frames `run`, decoded from the key frame numbered `key` on; 0: from the beginning."""
    container, stream = open_file(path)
    with container:
        if key and index.timed:
            time = int(index.seeks[np.searchsorted(index.keys, key)])
            decoded, ids = _from_time(container, stream, time), index.pts
        else:  # nothing to seek by: what lies before is read, but not decoded
            start = int(index.places[key]) if key else index.first
            decoded, ids = decode_from(container, stream, start, index.breaks), index.places
        wanted, number = list(run), -1
        for frame in decoded:
            number = _number(ids, frame.pts, number)
            if number < wanted[0]:
                continue
            if number > wanted[0] or frame.is_corrupt:
                raise InputError("it is missing" if number > wanted[0] else "it is damaged")
            pixels = frame.to_ndarray(format="rgb24", threads=1)
            yield np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90) % 4))
            del wanted[0]
            if not wanted:
                return
    raise InputError(reading.ENDED)


def _from_time(container: Any, stream: Any, time: int) -> Iterator[Any]:
    """Frames from the last key frame at or before a time on, if the container finds it."""
    container.seek(time, stream=stream)
    begun = False
    for _, packet in reading.packets(container, stream):
        begun = begun or packet.is_keyframe
        if reading.damaged(container, packet):
            raise InputError(reading.ENDED)
        if begun:
            yield from stream.decode(packet)
    yield from stream.decode(None)


def _number(ids: np.ndarray, pts: int | None, last: int) -> int:
    """The number of a decoded frame, `last` that of the one before it; -1: none known so far."""
    if last >= 0:
        if last + 1 < len(ids) and ids[last + 1] == pts:
            return last + 1
        raise InputError("the frames that follow are not those that the file lists")
    found = np.flatnonzero(ids == pts)
    return int(found[0]) if len(found) else -1
