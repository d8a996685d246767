"""The index of a video file: its frames in the order in which they are shown, and their times.

PyAV reads every packet (headers, nothing decoded) and sorts by the time of display. That is tested
on the first few frames; if they come otherwise, or a file has no such times, or they cannot be
believed, the file is decoded once from end to end and its frames are counted as they come:

- AVI and bare streams store no times of display, and what FFmpeg then calls so may be the time of
  decoding: of a codec that reorders frames, times in the order of decoding are not believed.
- A packet need not give one frame: packed B-frames, fields, invisible frames.
- A clock that restarts (concatenated recordings) gives two frames the same time.

Frames at the beginning that need one which is not in the file are no part of the index: a recording
may begin inside a group of pictures. What is left out is said in `unused`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from vistok.data.base import BadSample
from vistok.data.decode.video.counting import by_decoding, late
from vistok.data.decode.video.packets import Packets, read_packets
from vistok.data.decode.video.probe import Probe, timed
from vistok.data.decode.video.reading import decode_from, open_file, reason, sniff

_HEAD = 8  # frames that are decoded to check an index made of packets


def probe(
    path: str | os.PathLike[str],
    name: str | None = None,
    *,
    decode: bool = False,
    look: Callable[[Any], None] | None = None,
) -> Probe:
    """Read a file's index; BadSample if it is no video.

    Args:
        name: of the file in errors; default: the path.
        decode: decode all of it, and list what comes out before the first damage.
        look: called with every decoded frame; needs `decode`.
    """
    name = os.fspath(path) if name is None else name
    sniff(path, name)
    try:
        packets = read_packets(path, name)
        if not decode and packets.believable:
            index = _checked(path, packets, _by_times(packets))
        else:
            index = None
        if index is None:
            index = by_decoding(path, name, packets, look)
    except BadSample:
        raise
    except Exception as error:  # demuxers fail on hostile bytes in too many ways to list
        raise BadSample(name, f"cannot be opened as a video ({reason(error)})") from None
    if index.fps <= 0:
        raise BadSample(name, "states neither times of its frames nor a frame rate")
    return index


def _by_times(packets: Packets) -> Probe:
    places = np.array(sorted(packets.shown, key=lambda place: packets.pts[place]), np.int64)
    return timed(packets, places, {})


def _checked(path: str | os.PathLike[str], packets: Packets, index: Probe) -> Probe | None:
    """The index without frames at its beginning that do not decode; None if it is wrong there."""
    places = index.places.tolist()
    order = {place: number for number, place in enumerate(places)}
    begin = order.get(packets.first, 0)
    got: list[int] = []  # places; those before the first key frame and _HEAD from there on
    container, stream = open_file(path)
    with container:
        try:
            for frame in decode_from(container, stream, packets.first):
                if frame.is_corrupt and not got:
                    continue
                if frame.pts not in order:
                    return None
                got.append(frame.pts)
                if sum(order[place] >= begin for place in got) == _HEAD:
                    break
        except Exception:  # damage is found, and named, where frames are read
            if not got:
                return index
    if not got:
        return None
    gone = order[got[0]]
    if places[gone : gone + len(got)] != got:
        return None
    unused = late(gone, len(places))
    return timed(packets, index.places[gone:], {"unused": unused}) if gone else index
