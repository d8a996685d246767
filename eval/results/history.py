"""Training curves of a run, as results.json keeps them: metrics.jsonl, thinned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

POINTS = 200  # lines of each split; more cannot be seen in a chart


def thinned(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """At most `POINTS` evenly spaced lines of each split, the first and the last among them, in
    their order; without the numbers of single parts (NAME/PART)."""
    kept: list[int] = []
    for split in dict.fromkeys(line.get("split") for line in history):
        own = [place for place, line in enumerate(history) if line.get("split") == split]
        count = min(POINTS, len(own))
        kept += [own[round(i * (len(own) - 1) / max(1, count - 1))] for i in range(count)]
    return [
        {key: value for key, value in history[place].items() if "/" not in key}
        for place in sorted(kept)
    ]
