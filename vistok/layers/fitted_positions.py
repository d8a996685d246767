"""Position tables that are fitted to a grid: cropped or interpolated, from sincos or learned axes.

FlexTok's (arXiv 2502.13967). A sin-cos table of h x w cells is filled column by column and read row
by row: on a square both are the same, elsewhere rows and columns mix, an accident of its releases.
Learned tables have a row of vectors for each axis, whose sum or product is the cell's.
Letters: A axes, S cells of a side, D width, L cells of the grid.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from vistok.config import Config
from vistok.core.errors import InputError
from vistok.core.shapes import Grid


class FittedPositionsConfig(Config):
    """A position table of its own sides, fitted to the grid."""

    kind: Literal["sincos", "sum", "product"] = "sincos"
    """sincos: fixed, of two axes. sum, product: of a learned vector for each axis."""
    sides: tuple[Annotated[int, Field(ge=1, le=2**14)], ...] | None = None
    """Sides of the table; null = those of the grid."""
    fit: Literal["crop", "interpolate"] = "crop"
    """crop: the table's first cells; interpolate: linear, corner on corner."""


class FittedPositions(nn.Module):
    """The rows [L, D] of a grid."""

    def __init__(
        self, config: FittedPositionsConfig, grid: Grid, width: int, base: float = 10000.0
    ) -> None:
        super().__init__()
        self.config, self.grid = config, tuple(grid)
        self.sides = self.grid if config.sides is None else tuple(config.sides)
        too_small = any(side < part for side, part in zip(self.sides, self.grid, strict=False))
        if len(self.sides) != len(grid) or (config.fit == "crop" and too_small):
            raise InputError(
                f"positions: a table of sides {self.sides} cannot be cropped to the grid "
                f"{self.grid}; expected sides at least as long, or fit=interpolate"
            )
        if config.kind == "sincos":
            if len(grid) != 2 or width % 4:
                raise InputError(
                    f"positions: a sincos table of the grid {self.grid} with width={width}; "
                    "expected two axes and a multiple of 4, or kind=sum"
                )
            self.register_buffer("table", scrambled_sincos(self.sides, width, base), False)
        else:
            if len(set(self.sides)) > 1:
                raise InputError(f"positions: learned tables of sides {self.sides}; give a square")
            axes = torch.empty(len(grid), self.sides[0], width)
            self.axes = nn.Parameter(nn.init.trunc_normal_(axes, std=0.02))

    def forward(self) -> Tensor:
        if self.config.kind == "sincos":
            table = self.table
        else:
            table = self._combined()  # [*sides, D]
        if self.config.fit == "crop":
            return table[tuple(slice(side) for side in self.grid)].flatten(0, -2)
        if self.grid == self.sides:
            return table.flatten(0, -2)
        mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(self.grid)]
        maps = table.movedim(-1, 0)[None].float()
        fitted = nn.functional.interpolate(maps, self.grid, mode=mode, align_corners=True)
        return fitted[0].flatten(1).T

    def _combined(self) -> Tensor:
        """[*sides, D]: the sum or product of each axis's vectors."""
        count, table = len(self.sides), None
        for axis, rows in enumerate(self.axes):
            place = [1] * count + [rows.shape[-1]]
            place[axis] = rows.shape[0]
            rows = rows.view(place)
            if table is None:
                table = rows
            else:
                table = table * rows if self.config.kind == "product" else table + rows
        return table


def scrambled_sincos(sides: Grid, width: int, base: float = 10000.0) -> Tensor:
    """[h, w, width]: sines and cosines of one coordinate, then of the other.

    Cells are numbered down the columns, and these numbers are then read along the rows.
    """
    h, w = sides
    quarter = width // 4
    frequency = 1.0 / base ** (torch.arange(quarter, dtype=torch.float32) / quarter)
    cell = torch.arange(math.prod(sides))
    column, row = (cell // h).float(), (cell % h).float()
    angles = [place[:, None] * frequency for place in (column, row)]
    table = torch.cat([wave for a in angles for wave in (a.sin(), a.cos())], dim=1)
    return table.view(h, w, width)
