"""Index of a video file: which frames there are, when each is shown, how a decoder finds it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np

from vistok.core.errors import InputError
from vistok.data.decode.video.packets import BROADCAST, Packets


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
    usable: tuple[tuple[int, int], ...] = ()  # see `parts`; () = all is one part
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
    def parts(self) -> tuple[tuple[int, int], ...]:
        """(first frame, last + 1) of each run of frames that follow on each other and can be
        trusted; a clip lies within one."""
        return self.usable or ((0, self.frames),)

    def cut(self, start: int, stop: int) -> Probe:
        """The times of the frames start .. stop - 1, as an index of their own."""
        if (start, stop) == (0, self.frames):
            return self
        return replace(self, pts=self.pts[start:stop], usable=())

    def key(self, frame: int) -> int:
        """The key frame at which decoding of `frame` begins; 0 if the index names none."""
        place = int(np.searchsorted(self.keys, frame, side="right")) - 1
        return int(self.keys[place]) if place >= 0 else 0


def timed(packets: Packets, places: np.ndarray, facts: dict[str, Any]) -> Probe:
    """Index of frames whose packets' times of display are believed; `places` in their order."""
    pts = np.array([packets.pts[place] for place in places], np.int64)
    span = int(pts[-1] - pts[0]) * packets.unit
    fps = float((len(pts) - 1) / span) if span else 0.0
    if packets.losses:
        steps = np.diff(pts)
        fps = 1.0 / (float(np.median(steps)) * float(packets.unit)) if len(steps) else 0.0
        gaps = np.flatnonzero(steps > 1.5 * np.median(steps)) + 1 if len(steps) else ()
        facts = {**facts, "holes": {*facts.get("holes", ()), *map(int, gaps)}}
    return built(packets, places, pts, fps, True, facts)


def built(
    packets: Packets,
    places: np.ndarray,
    pts: np.ndarray,
    fps: float,
    timed: bool,
    facts: dict[str, Any],
) -> Probe:
    """The index of frames `places`, shown at `pts`.

    fps: 0 = that which the file states. facts: fields of the index; `holes` (frames that do not
    follow on the one before) instead of `usable`.
    """
    facts = dict(facts)
    usable, unused = _trusted(packets, places, facts)
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
        usable=usable,
        unused=unused,
        **facts,
    )


def _trusted(
    packets: Packets, places: np.ndarray, facts: dict[str, Any]
) -> tuple[tuple[tuple[int, int], ...], str]:
    """(parts of frames that do not refer to lost packets, what is not used and why)."""
    doubtful, unused = np.zeros(len(places), bool), [facts.pop("unused", "")]
    for start, key in packets.losses:
        found = np.flatnonzero(places == key)
        end = int(found[0]) if len(found) else len(places)
        doubtful[:end] |= places[:end] >= start
    if packets.losses:
        count = f"{doubtful.sum()} of {len(places)} frames"
        unused.append(f"packets were lost: {count}, which may refer to them, are not used")
    if doubtful.all():
        raise InputError("packets were lost, and no frame is sure not to refer to them")
    return _runs(facts.pop("holes", ()), doubtful), "; ".join(filter(None, unused))


def _runs(holes: Iterable[int], doubtful: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Parts of a film: runs of frames that are not doubtful, cut at `holes`; () = all is one."""
    count = len(doubtful)
    cuts = {*holes, *(np.flatnonzero(np.diff(doubtful)) + 1)}
    edges = (0, *sorted(int(cut) for cut in cuts), count)
    runs = tuple((a, b) for a, b in pairwise(edges) if a < b and not doubtful[a])
    return () if runs == ((0, count),) else runs
