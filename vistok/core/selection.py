"""Records of samples: frozen dataclasses from which some samples can be selected."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, TypeVar

from torch import Tensor

Rows = slice | list[int] | Tensor
R = TypeVar("R")


def select(record: R, rows: Rows) -> R:
    """The record of some samples: every field with a batch axis keeps `rows` of it, in that order.

    Args:
        rows: a slice (tensors stay views, and a GPU is asked for nothing), places, or an int64
            tensor of places on the CPU. Numbers, grids and scalars stay as they are.
    """
    changed = {f.name: _select(getattr(record, f.name), rows) for f in fields(record)}
    return replace(record, **changed)


def _select(value: Any, rows: Rows) -> Any:
    if isinstance(value, Tensor):
        return value[rows] if value.ndim else value
    if isinstance(value, dict):
        return {name: _select(one, rows) for name, one in value.items()}
    if isinstance(value, tuple) and value and isinstance(value[0], str):  # one text per sample
        places = range(len(value))[rows] if isinstance(rows, slice) else list(rows)
        return tuple(value[int(place)] for place in places)
    return value.select(rows) if hasattr(value, "select") else value


class Record:
    """Base of the records whose samples can be selected."""

    def select(self: R, rows: Rows) -> R:
        """The record of some samples: a slice, places, or an int64 tensor of places on the CPU."""
        return select(self, rows)
