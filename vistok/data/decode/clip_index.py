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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np

from vistok.data.base import BadSample
from vistok.data.decode import clip_file
from vistok.data.decode.clip_file import decode_from, open_file, reason, sniff
from vistok.data.decode.clip_packets import BROADCAST, Packets, read_packets

_HEAD = 8  # frames that are decoded to check an index made of packets


@dataclass(frozen=True)
class Probe:
    """The index of a file. Frames are numbered in the order in which they are shown."""

    pts: np.ndarray  # [N] int64, rising, in units of `unit`
    durations: np.ndarray  # [N] int64
    keys: np.ndarray  # [K] int64: frames at which decoding can begin
    unit: Fraction  # seconds
    fps: float  # mean frame rate
    size: tuple[int, int]  # (H, W) as stored: before a rotation
    timed: bool  # True: decoders find frames by `pts`; False: by `places`
    stream: int
    seeks: np.ndarray | None = None  # [K] int64: times at which the container finds the key frames
    places: np.ndarray | None = None  # [N] int64: of each frame's packet in the stream
    first: int = 0  # place of the packet at which decoding from the beginning starts
    breaks: tuple[int, ...] = ()  # places at which a decoder begins anew
    holes: tuple[int, ...] = ()  # frames that do not follow on the one before: clips do not span it
    decoded: bool = False  # True: every frame of the index came out of the decoder
    sizes: tuple[tuple[int, tuple[int, int]], ...] = ()  # (first frame of it, (H, W) upright)
    codec: str = ""
    container: str = ""
    unused: str = ""  # frames that cannot be used, and why; "" = all can
    oddities: tuple[str, ...] = ()  # facts to know of a file that is used whole

    @property
    def frames(self) -> int:
        return len(self.pts)

    @property
    def times(self) -> np.ndarray:
        """[N] float64, seconds since the first frame."""
        return (self.pts - self.pts[0]) * float(self.unit)

    @property
    def seconds(self) -> float:
        return self.frames / self.fps

    @property
    def remarks(self) -> str:
        """Everything that is odd about the file, on one line; "" = nothing."""
        return "; ".join(filter(None, (self.unused, *self.oddities)))

    @property
    def parts(self) -> list[tuple[int, int]]:
        """(first frame, last + 1) of each run of frames without a hole; clips lie within one."""
        return list(pairwise((0, *self.holes, self.frames)))

    def cut(self, start: int, stop: int) -> Probe:
        """The times of the frames start .. stop - 1, as an index of their own."""
        if (start, stop) == (0, self.frames):
            return self
        return replace(self, pts=self.pts[start:stop], holes=())

    def key(self, frame: int) -> int:
        """The key frame at which decoding of `frame` begins; 0 if the index names none."""
        place = int(np.searchsorted(self.keys, frame, side="right")) - 1
        return int(self.keys[place]) if place >= 0 else 0


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
            index = _by_decoding(path, name, packets, look)
    except BadSample:
        raise
    except Exception as error:  # demuxers fail on hostile bytes in too many ways to list
        raise BadSample(name, f"cannot be opened as a video ({reason(error)})") from None
    if index.fps <= 0:
        raise BadSample(name, "states neither times of its frames nor a frame rate")
    return index


def _by_times(packets: Packets) -> Probe:
    places = np.array(sorted(packets.shown, key=lambda place: packets.pts[place]), np.int64)
    return _timed(packets, places)


def _timed(packets: Packets, places: np.ndarray, **facts: Any) -> Probe:
    """Index of frames whose packets' times of display are believed; `places` in their order."""
    pts = np.array([packets.pts[place] for place in places], np.int64)
    span = int(pts[-1] - pts[0]) * packets.unit
    return _probe(packets, places, pts, float((len(pts) - 1) / span) if span else 0.0, True, facts)


def _probe(
    packets: Packets,
    places: np.ndarray,
    pts: np.ndarray,
    fps: float,
    timed: bool,
    facts: dict[str, Any],
) -> Probe:
    """The index of frames `places`, shown at `pts`; fps: 0 = that which the file states."""
    fps = fps or float(packets.rate)
    times = packets.dts if packets.container in BROADCAST else packets.pts  # what it is searched by
    once = np.bincount(places[places >= 0], minlength=len(packets.keys)) == 1
    durations = [packets.durations[place] if place >= 0 else 0 for place in places]
    keys = np.flatnonzero([p >= 0 and once[p] and packets.keys[p] for p in places])
    seeks = [packets.pts[p] if times[p] is None else times[p] for p in places[keys]]
    return Probe(
        pts=pts,
        durations=np.array(durations, np.int64),
        keys=keys,
        seeks=np.array(seeks, np.int64) if timed else None,
        unit=facts.pop("unit", packets.unit),
        fps=round(fps, 3),
        size=packets.size,
        timed=timed,
        stream=packets.stream,
        places=places,
        first=packets.first,
        codec=packets.codec,
        container=packets.container,
        **facts,
    )


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
    return _timed(packets, index.places[gone:], unused=_late(gone, len(places))) if gone else index


def _late(gone: int, count: int) -> str:
    """The remark on frames at the beginning of a file that need one which is not in it."""
    return (
        f"the first {gone} of {count} frames cannot be decoded: the file begins inside a group of "
        f"pictures"
    )


@dataclass(frozen=True)
class _Came:
    """Frames as a decoder gave them."""

    places: list[int]  # of their packets; -1: not known
    sizes: list[tuple[int, tuple[int, int]]]  # (first frame of it, (H, W) upright)
    fault: str  # why it ended early


def _decode(
    path: str | os.PathLike[str],
    packets: Packets,
    breaks: Sequence[int],
    look: Callable[[Any], None] | None,
) -> _Came:
    """The frames before the first damage; damaged ones at the very beginning are passed over."""
    came = _Came([], [], "")
    container, stream = open_file(path)
    with container:
        try:
            for frame in decode_from(container, stream, packets.first, breaks):
                if frame.is_corrupt and not came.places:
                    continue
                if frame.is_corrupt:
                    return replace(came, fault="it is damaged")
                if look is not None:
                    look(frame)
                size = (frame.height, frame.width)
                size = size[::-1] if round(frame.rotation / 90) % 2 else size
                if not came.sizes or came.sizes[-1][1] != size:
                    came.sizes.append((len(came.places), size))
                came.places.append(-1 if frame.pts is None else frame.pts)
        except Exception as error:  # as in `probe`
            return replace(came, fault=reason(error))
    return came


def _by_decoding(
    path: str | os.PathLike[str],
    name: str,
    packets: Packets,
    look: Callable[[Any], None] | None,
) -> Probe:
    """Index of the frames that a decoder gives, in its order, up to the first that is damaged."""
    joints = packets.joints
    came, breaks = _decode(path, packets, joints, look), tuple(joints)
    if len(came.sizes) > 1:  # a decoder may lose what it holds back when the size changes
        changes = {_key_before(packets, came.places[start]) for start, _ in came.sizes[1:]}
        breaks = tuple(sorted(changes.union(joints)))
        came = _decode(path, packets, breaks, None)
    if not came.places:
        raise BadSample(name, f"not one frame can be decoded ({came.fault or clip_file.ENDED})")
    places = np.array(came.places, np.int64)
    pts = [packets.pts[place] if place >= 0 else None for place in came.places]
    believed = not (packets.bare or joints or None in pts) and all(a < b for a, b in pairwise(pts))
    oddities = [
        f"from frame {start} on frames have {w}x{h} pixels, not {was[1]}x{was[0]}"
        for (_, was), (start, (h, w)) in pairwise(came.sizes)
    ]
    restarts = _cuts(places, joints)
    oddities += [f"its clock restarts at frame {start}; no clip spans that" for start in restarts]
    if believed:
        gone = sum((packets.pts[place] or 0) < pts[0] for place in packets.shown)
    else:
        gone = sum(place < packets.first for place in packets.shown)
    holes = _holes(packets, came.places, pts) if believed else tuple(restarts)
    unused = [_late(gone, len(packets.shown))] if gone else []
    rest = len(packets.shown) - gone - len(pts)
    if came.fault:
        n = len(pts)
        unused.append(
            f"frame {n} cannot be decoded ({came.fault}): clips that meet it are taken from the "
            f"{n} before it"
        )
    elif rest > 0 and (holes or not believed):  # else: fields, or frames that are not to be seen
        lost = unused if holes else oddities
        lost.append(f"{rest} of its {len(packets.shown)} packets give no frame")
    facts: dict[str, Any] = {
        "breaks": breaks,
        "holes": holes,
        "decoded": True,
        "sizes": tuple(came.sizes),
        "unused": "; ".join(unused),
        "oddities": tuple(oddities),
    }
    if believed:
        return _timed(packets, places, **facts)
    times, unit, fps = _times(packets, places, joints, name)
    return _probe(packets, places, times, fps, False, {**facts, "unit": unit})


def _holes(packets: Packets, places: list[int], pts: list[int]) -> tuple[int, ...]:
    """Frames after a gap in their times `pts` in which others are stored that do not decode."""
    steps = np.diff(pts)
    gaps = np.flatnonzero(steps > 1.5 * np.median(steps)) if len(steps) else []
    lost = [packets.pts[place] for place in set(packets.shown).difference(places)]
    return tuple(int(n) + 1 for n in gaps if any(pts[n] < time < pts[n + 1] for time in lost))


def _key_before(packets: Packets, place: int) -> int:
    """Place of the key packet at or before a place."""
    return next((p for p in range(place, 0, -1) if packets.keys[p]), 0)


def _times(
    packets: Packets, places: np.ndarray, joints: list[int], name: str
) -> tuple[np.ndarray, Fraction, float]:
    """(times of display, their unit, mean frame rate) of frames that are found by counting.

    Between two joints these are the stored times, sorted: those of decoding are the same ones in
    another order. A clock that restarts goes on one step later. Without times: the stated rate.
    """
    rate = packets.rate
    # AVI has the times of decoding alone, times of display are FFmpeg's guess.
    both = (packets.pts, packets.dts)
    for stored in reversed(both) if packets.container == "avi" else both:
        times = [stored[place] if place >= 0 else None for place in places]
        if packets.bare or None in times:
            continue
        parts = np.split(np.array(times, np.int64), _cuts(places, joints))
        parts = [np.sort(part) for part in parts if len(part)]
        steps = np.concatenate([np.diff(part) for part in parts])
        if not len(steps) or (steps <= 0).any():
            continue
        step = int(np.median(steps))
        for before, part in pairwise(parts):
            part += before[-1] + step - part[0]
        pts = np.concatenate(parts)
        return pts, packets.unit, float((len(pts) - 1) / ((pts[-1] - pts[0]) * packets.unit))
    if rate <= 0:
        raise BadSample(name, "states neither times of its frames nor a frame rate")
    return np.arange(len(places)), 1 / rate, float(rate)


def _cuts(places: np.ndarray, joints: list[int]) -> list[int]:
    """Numbers of the frames at which the parts between joints begin."""
    part = np.searchsorted(joints, places, side="right")
    return (np.flatnonzero(np.diff(part)) + 1).tolist()
