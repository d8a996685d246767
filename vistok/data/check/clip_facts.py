"""Facts about the video files of a scan, and how they are told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

_LISTED = 20  # files up to which the table has a line for each


@dataclass(frozen=True)
class ClipFacts:
    """Facts about one video file, of the frames that decode."""

    width: int  # of the first frame, upright
    height: int
    fps: float  # mean
    frames: int
    seconds: float
    codec: str
    container: str


def clip_report(
    clips: Sequence[tuple[str, ClipFacts]], spread: Callable[[Any], dict[str, float]]
) -> dict[str, Any]:
    """JSON: `clips`, each file with its facts, and their distributions (by `spread`)."""
    return {
        "clips": [{"name": name, **asdict(facts)} for name, facts in clips],
        "frames": spread(facts.frames for _, facts in clips),
        "seconds": spread(facts.seconds for _, facts in clips),
        "fps": spread(facts.fps for _, facts in clips),
        "codecs": dict(Counter(f"{f.codec} in {f.container}" for _, f in clips).most_common()),
    }


def clip_lines(report: dict[str, Any]) -> list[str]:
    """One line for each file of `clip_report`, none if there are many."""
    clips = report["clips"]
    if len(clips) > _LISTED:
        return [f"  {len(clips)} files; --out has the facts of each"]
    return [
        f"  {clip['name']}: {clip['width']}x{clip['height']}, {clip['fps']:.6g} fps, "
        f"{clip['frames']} frames, {clip['seconds']:.4g} s, {clip['codec']} in {clip['container']}"
        for clip in clips
    ]
