"""A validation metric that falls behind its best while the training loss goes on falling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

ALARM = "overfitting"
_CLEARLY = 0.01  # worse by more than this share of the best value


@dataclass(frozen=True)
class _Seen:
    """One validation, and the mean training loss of the log lines since the one before it."""

    step: int
    value: float
    loss: float


def warning(rows: Iterable[Mapping[str, Any]], metric: str, higher_is_better: bool) -> str | None:
    """One line if the last validation is clearly worse than the best one, though the loss fell.

    Args:
        rows: of metrics.jsonl, in order. metric: by which validations are compared.
    """
    seen = _validations(rows, metric)
    if not seen:
        return None
    sign = 1 if higher_is_better else -1
    best, last = max(seen, key=lambda one: sign * one.value), seen[-1]
    behind = sign * (best.value - last.value)
    if behind <= _CLEARLY * abs(best.value) or last.loss >= best.loss:
        return None
    moved = "fell" if higher_is_better else "rose"
    return (
        f"validation {metric} {moved} from {best.value:.4g} (step {best.step:,}) to "
        f"{last.value:.4g} (step {last.step:,}) while the training loss fell from {best.loss:.4g} "
        f"to {last.loss:.4g}: the run overfits, or its validation data are of another kind; use "
        "more data or fewer steps, and keep_best=1 keeps the best checkpoint"
    )


def _validations(rows: Iterable[Mapping[str, Any]], metric: str) -> list[_Seen]:
    seen: list[_Seen] = []
    losses: list[float] = []
    for row in rows:
        value, loss = row.get(metric), row.get("loss")
        if row.get("split") == "train" and isinstance(loss, int | float):
            losses.append(loss)
        elif row.get("split") == "val" and isinstance(value, int | float):
            if losses:
                seen.append(_Seen(int(row["step"]), value, fmean(losses)))
                losses = []
            elif seen:  # no line of the log since the last one
                seen.append(_Seen(int(row["step"]), value, seen[-1].loss))
    return seen
