"""Settings that changed when a run was resumed: each change, and the step after which it holds.

A checkpoint holds the settings it was trained with and all changes before it, so that the history
is right whichever checkpoint a run resumes from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from vistok.config.overrides import leaves
from vistok.train.config import TrainConfig

# Keys that say where a run lies, how it starts, is fed and logged: nothing of what is trained.
_ELSEWHERE = ("name", "out", "resume", "workers", "log_every", "trackers", "peak_tflops")

Change = dict[str, Any]
"""{"after_step", "key", "before", "now"}; a key that is not there before or now is null."""


def settings(config: TrainConfig, processes: int) -> dict[str, Any]:
    """The settings that hold in a run, flat, JSON; and the number of its processes."""
    tree = config.model_dump(mode="json", exclude=set(_ELSEWHERE))
    return dict(leaves(tree, lists=True)) | {"processes": processes}


def changes(step: int, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """What differs between the settings of a checkpoint of `step` and those of now."""
    return [
        {"after_step": step, "key": key, "before": before.get(key), "now": now.get(key)}
        for key in [*before, *(key for key in now if key not in before)]
        if before.get(key) != now.get(key)
    ]


def told(changed: Sequence[Change]) -> str:
    """Changes on the line that says from where a run resumes: ", lr: 0.1 before, 0.2 now"."""
    return "".join(
        f", {change['key']}: {change['before']} before, {change['now']} now" for change in changed
    )


def header(history: Sequence[Change]) -> str:
    """Comment lines for the top of a run's config.yaml, which itself shows what holds now."""
    if not history:
        return ""
    lines = ["# What holds now; changed when the run was resumed:"]
    for change in history:
        before, now = (json.dumps(change[key], ensure_ascii=False) for key in ("before", "now"))
        lines.append(f"# after step {change['after_step']}: {change['key']} from {before} to {now}")
    return "\n".join(lines) + "\n"
