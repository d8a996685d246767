"""When two numbers compare: the protocol fields in which rows, or the two sides of one, differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from eval.rows import Row

_ROW: dict[str, Callable[[Row], Any]] = {
    "metric": lambda row: row.metric,
    "features.name": lambda row: row.features and row.features.name,
    "features.sha256": lambda row: row.features and row.features.sha256,
    "reference.name": lambda row: row.reference.name,
    "reference.split": lambda row: row.reference.split,
    "reference.manifest": lambda row: row.reference.manifest,
    "reference.count": lambda row: row.reference.count,
    "samples": lambda row: row.samples,
    "crop": lambda row: row.crop,
    "filter": lambda row: row.filter,
    "size": lambda row: row.size,
    "decode.guidance": lambda row: row.decode.guidance,
    "decode.temperature": lambda row: row.decode.temperature,
    "decode.top_k": lambda row: row.decode.top_k,
    "decode.top_p": lambda row: row.decode.top_p,
    "decode.seed": lambda row: row.decode.seed,
    "condition": lambda row: row.condition,
    "precision": lambda row: row.precision,
    "perturbation": lambda row: (
        row.perturbation and (row.perturbation.alpha, row.perturbation.delta_asked)
    ),
    "damage": lambda row: row.damage and (row.damage.kind, row.damage.share),
    "tap": lambda row: row.tap,
}


def differences(a: Row, b: Row) -> tuple[str, ...]:
    """Names of the protocol fields in which two rows differ; () = the numbers compare.

    What is being compared is no protocol: run, weights, codec and bytes, token length and the
    sampling steps that follow from it. Nor are versions, commit and date.
    """
    return tuple(name for name, value in _ROW.items() if value(a) != value(b))
