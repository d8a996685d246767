"""Comparability of two numbers: the fields of their protocols in which two rows differ."""

from __future__ import annotations

from typing import Any

from vistok.config.overrides import leaves
from vistok.eval.results.rows import Row

_COMPARED = (
    *("metric", "setting", "point", "features", "reference", "count", "crop", "filter", "size"),
    *("sampling", "seed", "seeds", "condition", "precision"),
)
# Compared with one another, so no protocol; `described` is for people; `filter` says it itself.
_FREE = ("point.codec", "reference.described", "setting.filter")


def differences(a: Row, b: Row) -> tuple[str, ...]:
    """Names of the protocol fields in which two rows differ; () = the numbers compare.

    Run, weights, token length, codec and other measured quantities are what is compared, not part
    of a protocol. Nor are versions, commit and date.
    """
    mine, theirs = protocol_of(a), protocol_of(b)
    names = [*mine, *(name for name in theirs if name not in mine)]
    return tuple(name for name in names if mine.get(name) != theirs.get(name))


def protocol_of(row: Row) -> dict[str, Any]:
    """{field: value} of all that must agree, with dots in the names: {"features.name": ...}."""
    found: dict[str, Any] = {}
    for name in _COMPARED:
        value = getattr(row, name)
        value = value.model_dump() if hasattr(value, "model_dump") else value
        for key, one in leaves(value, name):
            if one is not None and one != "" and key not in _FREE:
                found[key] = tuple(one) if isinstance(one, list) else one
    return found
