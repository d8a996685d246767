"""Columns of charts: as many as fit, and none of them left alone in the last row."""

from __future__ import annotations

_WIDE, _MIDDLE = (4, 3, 5), (3, 2, 4)  # columns by width of the page, the best number first


def columns(count: int) -> str:
    """CSS variables of a grid of `count` charts: --wide and --middle columns."""
    return f"--wide: {_columns(count, _WIDE)}; --middle: {_columns(count, _MIDDLE)}"


def _columns(count: int, choices: tuple[int, ...]) -> int:
    """The first choice whose last row does not hold a single chart; all in one row if they fit."""
    if count <= choices[0]:
        return max(1, count)
    return next((one for one in choices if count % one != 1), choices[0])
