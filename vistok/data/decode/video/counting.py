"""The index of a video file made by decoding all of it: frames are counted as they come."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np

from vistok.data.base import BadSample
from vistok.data.decode.video.packets import CONSTANT, Packets
from vistok.data.decode.video.probe import Probe, built, timed
from vistok.data.decode.video.reading import ENDED, decode_from, open_file, reason


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
        except Exception as error:  # decoders fail on hostile bytes in too many ways to list
            return replace(came, fault=reason(error))
    return came


def by_decoding(
    path: str | os.PathLike[str],
    name: str,
    packets: Packets,
    look: Callable[[Any], None] | None,
) -> Probe:
    """Index of the frames that a decoder gives, in its order, up to the first that is damaged."""
    joints = packets.joints
    came, breaks = _decode(path, packets, joints, look), tuple(joints)
    if len(came.sizes) > 1:  # a decoder may lose what it holds back when the size changes
        changes = {packets.key_before(came.places[start]) for start, _ in came.sizes[1:]}
        breaks = tuple(sorted(changes.union(joints)))
        came = _decode(path, packets, breaks, None)
    if not came.places:
        raise BadSample(name, f"not one frame can be decoded ({came.fault or ENDED})")
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
    unused = [late(gone, len(packets.shown))] if gone else []
    rest = len(packets.shown) - gone - len(pts)
    if came.fault:
        n = len(pts)
        unused.append(
            f"frame {n} cannot be decoded ({came.fault}): clips that meet it are taken from the "
            f"{n} before it"
        )
    elif rest > 0 and (holes or not (believed or packets.bare or packets.codec == "mpeg4")):
        # Else these are fields, invisible frames, or pictures that only take up their place.
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
        return timed(packets, places, facts)
    times, unit, fps = _times(packets, places, joints, name)
    return built(packets, places, times, fps, False, {**facts, "unit": unit})


def _holes(packets: Packets, places: list[int], pts: list[int]) -> tuple[int, ...]:
    """Frames after a gap in their times `pts` in which others are stored that do not decode."""
    steps = np.diff(pts)
    gaps = np.flatnonzero(steps > 1.5 * np.median(steps)) if len(steps) else []
    lost = [packets.pts[place] for place in set(packets.shown).difference(places)]
    return tuple(int(n) + 1 for n in gaps if any(pts[n] < time < pts[n + 1] for time in lost))


def _times(
    packets: Packets, places: np.ndarray, joints: list[int], name: str
) -> tuple[np.ndarray, Fraction, float]:
    """(times of display, their unit, mean frame rate) of frames that are found by counting.

    Between two joints these are the stored times, sorted: those of decoding are the same ones in
    another order. A clock that restarts goes on one step later. Without times: the stated rate.
    """
    rate = packets.rate
    # AVI has the times of decoding alone, times of display are FFmpeg's guess; a packet or two that
    # give no frame are no pause.
    avi, both = packets.container == "avi", (packets.pts, packets.dts)
    for stored in reversed(both) if avi else both:
        times = [stored[place] if place >= 0 else None for place in places]
        if packets.bare or None in times:
            continue
        parts = np.split(np.array(times, np.int64), _cuts(places, joints))
        parts = [np.sort(part) for part in parts if len(part)]
        steps = np.concatenate([np.diff(part) for part in parts])
        if not len(steps) or (steps <= 0).any():
            continue
        step = int(np.median(steps))
        if avi and (steps == step).mean() >= CONSTANT:
            return np.arange(len(places)) * step, packets.unit, float(1 / (step * packets.unit))
        for before, part in pairwise(parts):
            part += before[-1] + step - part[0]
        pts = np.concatenate(parts)
        mean = step if packets.losses else Fraction(int(pts[-1] - pts[0]), len(pts) - 1)
        return pts, packets.unit, float(1 / (mean * packets.unit))
    if rate <= 0:
        raise BadSample(name, "states neither times of its frames nor a frame rate")
    return np.arange(len(places)), 1 / rate, float(rate)


def _cuts(places: np.ndarray, joints: list[int]) -> list[int]:
    """Numbers of the frames at which the parts between joints begin."""
    part = np.searchsorted(joints, places, side="right")
    return (np.flatnonzero(np.diff(part)) + 1).tolist()


def late(gone: int, count: int) -> str:
    """The remark on frames at the beginning of a file that need one which is not in it."""
    return (
        f"the first {gone} of {count} frames cannot be decoded: the file begins inside a group of "
        f"pictures"
    )
