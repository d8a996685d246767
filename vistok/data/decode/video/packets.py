"""The packets of a video's stream: what a container says without a frame being decoded."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np

from vistok.data.base import BadSample
from vistok.data.decode.video import reading
from vistok.data.decode.video.reading import damaged, open_file

_NO_TIMES = 0x80  # AVFMT_NOTIMESTAMPS: a bare stream; what FFmpeg then says of times is guessed
_BACK = 3  # steps by which a clock must go back to count as restarted
CONSTANT = 0.9  # share of equal steps from which a rate is taken to be constant
_DEPTH = 8  # frames that may be stored after one which is shown later
_GAP = 1.0  # seconds by which the clock of a broadcast stream must jump ahead to count so
BROADCAST = ("mpegts", "mpeg")  # containers whose clock means nothing across a joint


@dataclass(frozen=True)
class Packets:
    """Facts about a stream and each of its packets, in the order in which they are stored."""

    pts: list[int | None]
    dts: list[int | None]
    durations: list[int]
    keys: list[bool]
    shown: list[int]  # places of packets that are whole and meant to be shown
    size: tuple[int, int]
    rate: Fraction
    unit: Fraction
    stream: int
    bare: bool
    reorders: bool  # the codec may show frames in another order than it decodes them
    codec: str
    container: str

    @property
    def first(self) -> int:
        """Place of the first key packet; 0 if there is none."""
        return next((place for place, key in enumerate(self.keys) if key), 0)

    def key_before(self, place: int) -> int:
        """Place of the key packet at or before a place; 0 if there is none."""
        return next((p for p in range(place, 0, -1) if self.keys[p]), 0)

    def key_from(self, place: int) -> int:
        """Place of the key packet at or after a place; -1 if there is none."""
        return next((p for p in range(place, len(self.keys)) if self.keys[p]), -1)

    @property
    def believable(self) -> bool:
        """True if times of display are stored, all distinct, and not those of decoding."""
        pts = [self.pts[place] for place in self.shown]
        if self.bare or None in pts or len(set(pts)) < len(pts) or self.joints:
            return False
        return not self.reorders or any(a > b for a, b in pairwise(pts))

    @functools.cached_property
    def joints(self) -> list[int]:
        """Places at which the clock restarts, or jumps ahead in a broadcast stream."""
        places, steps, step = self._steps
        ahead = max(_GAP / float(self.unit), 10 * step)
        jumps = (steps > ahead) & (self.container in BROADCAST)
        return places[1:][(steps < -_BACK * step) | jumps].tolist()

    @functools.cached_property
    def losses(self) -> list[tuple[int, int]]:
        """Where packets of a broadcast stream of constant rate were lost: (place from which on
        packets may refer to them, place of the next key packet, -1 without one).

        A gap of the times of decoding tells the place; one of the times of display alone, that it
        is one of a few.
        """
        places, steps, step = self._steps
        even = len(steps) and (np.abs(steps - step) <= 1).mean() >= CONSTANT
        if self.container not in BROADCAST or not even or self.joints:
            return []
        gaps = places[1:][steps > 1.5 * step].tolist()
        found = [(p, self.key_from(p)) for p in gaps if p > self.first]
        if None in (self.pts[place] for place in (self.first, *self.shown)):
            return found
        order = [place for place in self.shown if self.pts[place] >= self.pts[self.first]]
        order.sort(key=lambda place: self.pts[place])
        pts = np.array([self.pts[place] for place in order])
        for n in (np.flatnonzero(np.diff(pts) > 1.5 * step) + 1).tolist():
            key, end = self.key_before(order[n - 1]), self.key_from(order[n])
            start = min((p for p in order[max(0, n - _DEPTH) : n] if p > key), default=key + 1)
            if not any(start <= p and (end < 0 or p < end) for p, _ in found):
                found.append((start, end))
        return found

    @functools.cached_property
    def _steps(self) -> tuple[np.ndarray, np.ndarray, float]:
        """(places [N] with a time of decoding, its steps [N - 1], their median; 0 without any)."""
        places = [place for place in self.shown if self.dts[place] is not None]
        steps = np.diff(np.array([self.dts[place] for place in places], np.int64))
        step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
        return np.array(places, np.int64), steps, step


def read_packets(path: str | os.PathLike[str], name: str) -> Packets:
    """Read the headers of all packets; BadSample if there is no video in the file."""
    container, stream = open_file(path)
    with container:
        if stream is None:
            kinds = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
            raise BadSample(name, f"has no video stream, only {kinds}")
        height, width = stream.height, stream.width
        if height < 1 or width < 1:
            raise BadSample(name, f"declares {width}x{height} pixels; expected 1 or more")
        if height * width > reading.PIXEL_LIMIT:
            limit = f"{reading.PIXEL_LIMIT / 1e6:g} Mpx"
            raise BadSample(name, f"declares {width}x{height} pixels, over the limit of {limit}")
        rows = [
            (
                *(p.pts, p.dts, p.duration or 0, p.is_keyframe and not damaged(container, p)),
                not (damaged(container, p) or p.is_discard),
            )
            for _, p in reading.packets(container, stream)
        ]
        formats = container.format.name.split(",")
        codec = stream.codec_context.codec
        packets = Packets(
            *([row[i] for row in rows] for i in range(4)),
            shown=[place for place, row in enumerate(rows) if row[4]],
            size=(height, width),
            rate=Fraction(stream.average_rate or stream.guessed_rate or 0),
            unit=Fraction(stream.time_base.numerator, stream.time_base.denominator),
            stream=stream.index,
            bare=bool(container.format.flags & _NO_TIMES),
            reorders=bool(stream.codec_context.has_b_frames)
            or ("avi" in formats and codec.reorder),
            codec=codec.canonical_name,
            container="/".join(formats[:2]),
        )
    if not packets.shown:
        raise BadSample(name, "has a video stream without frames")
    return packets
