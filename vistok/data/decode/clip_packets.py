"""The packets of a video's stream: what a container says without a frame being decoded."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np

from vistok.data.base import BadSample
from vistok.data.decode import clip_file
from vistok.data.decode.clip_file import damaged, open_file

_NO_TIMES = 0x80  # AVFMT_NOTIMESTAMPS: a bare stream; what FFmpeg then says of times is guessed
_BACK = 3  # steps by which a clock must go back to count as restarted
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
        times = [(place, self.dts[place]) for place in self.shown]
        times = [(place, time) for place, time in times if time is not None]
        steps = np.diff([time for _, time in times])
        step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
        back = -_BACK * step
        ahead = max(_GAP / float(self.unit), 10 * step)
        jumps = self.container in BROADCAST
        return [
            place
            for (place, _), way in zip(times[1:], steps, strict=True)
            if way < back or (jumps and way > ahead)
        ]


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
        if height * width > clip_file.PIXEL_LIMIT:
            limit = f"{clip_file.PIXEL_LIMIT / 1e6:g} Mpx"
            raise BadSample(name, f"declares {width}x{height} pixels, over the limit of {limit}")
        rows = [
            (
                *(p.pts, p.dts, p.duration or 0, p.is_keyframe and not damaged(container, p)),
                not (damaged(container, p) or p.is_discard),
            )
            for _, p in clip_file.packets(container, stream)
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
