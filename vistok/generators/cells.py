"""Cells: groups of positions that are generated together, one group after another (next-X
prediction, xAR, arXiv 2502.20388).

A cell is a rectangle of a block's grid (of one token, of a row, of k x k tokens, of the whole
block), or as many tokens that lie far apart. Letters: L positions, S cells, A axes of a block.
"""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Literal

from pydantic import Field

from vistok.config import Config
from vistok.config.one_or_list import one_or_list
from vistok.core.errors import InputError
from vistok.core.shapes import Grid
from vistok.tokens import TokenSpec


class CellsConfig(Config):
    """How the positions of every block of tokens are grouped, and in which order the groups come.
    Inside a group positions are in raster order; blocks come one after another."""

    size: one_or_list(Annotated[int, Field(ge=1, le=2**14)]) | None = 1
    """Sides of a cell: one number for all axes, or one for each axis of a block; those at the edges
    are smaller where sides do not divide. 1 = single tokens; [1, 16] = rows of 16; null = whole
    blocks (frames, scales)."""
    group: Literal["cell", "strided"] = "cell"
    """cell: neighbors; strided: tokens as far apart as there are cells along an axis, so that each
    group is the block in small (xAR's subsamples)."""
    order: Literal["raster", "columns", "snake", "center"] = "raster"
    """Order of the cells of a block: raster, row by row; columns, column by column; snake, every
    other row backwards; center, from the middle outwards."""


def cells_of(config: CellsConfig, spec: TokenSpec) -> tuple[tuple[int, ...], ...]:
    """The positions of each of the S cells, in the order of generation.

    Raises InputError for sizes of another number of axes than a block.
    """
    found, start = [], 0
    for block in spec.blocks:
        found += [tuple(start + place for place in cell) for cell in _of_block(config, block)]
        start += math.prod(block)
    return tuple(found)


def _of_block(config: CellsConfig, block: Grid) -> list[list[int]]:
    sides = _sides(config, block)
    counts = [-(-side // one) for side, one in zip(block, sides, strict=True)]
    cells = {cell: [] for cell in _ordered(config.order, counts)}
    for number, place in enumerate(itertools.product(*map(range, block))):
        if config.group == "cell":
            cell = tuple(at // one for at, one in zip(place, sides, strict=True))
        else:
            cell = tuple(at % count for at, count in zip(place, counts, strict=True))
        cells[cell].append(number)
    return list(cells.values())


def _sides(config: CellsConfig, block: Grid) -> list[int]:
    size = config.size
    if size is None:
        return list(block)
    sides = [size] * len(block) if isinstance(size, int) else list(size)
    if len(sides) != len(block):
        raise InputError(
            f"cells.size={size} for a block of tokens {block}; expected one number, or "
            f"{len(block)}: a side for each axis"
        )
    return [min(one, side) for one, side in zip(sides, block, strict=True)]


def _ordered(order: str, counts: list[int]) -> list[tuple[int, ...]]:
    """Coordinates of all cells of a block, in order."""
    raster = list(itertools.product(*map(range, counts)))
    if order == "columns":
        return sorted(raster, key=lambda cell: cell[::-1])
    if order == "snake":
        back = lambda cell: counts[-1] - 1 - cell[-1] if sum(cell[:-1]) % 2 else cell[-1]
        return sorted(raster, key=lambda cell: (*cell[:-1], back(cell)))
    if order == "center":
        middle = [(count - 1) / 2 for count in counts]
        far = lambda cell: sum((a - b) ** 2 for a, b in zip(cell, middle, strict=True))
        return sorted(raster, key=far)  # equally far ones stay in raster order
    return raster
