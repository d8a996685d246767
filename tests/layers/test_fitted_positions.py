"""Position tables of their own sides: cropped, interpolated, from sincos or learned axes."""

import pytest
import torch

from vistok.layers.fitted_positions import FittedPositions, FittedPositionsConfig, scrambled_sincos
from vistok.layers.positions import PositionTable, grid_positions, sincos


def made(grid, width=8, **config) -> FittedPositions:
    torch.manual_seed(0)
    return FittedPositions(FittedPositionsConfig(**config), grid, width)


def test_a_square_of_sincos_is_the_plain_table():
    table = sincos(grid_positions((4, 4)), 16)
    torch.testing.assert_close(made((4, 4), 16)(), table)
    torch.testing.assert_close(scrambled_sincos((4, 4), 16).flatten(0, 1), table)


def test_elsewhere_rows_and_columns_mix():
    """Cell n of the table is numbered down the columns: (column, row) = (n // h, n % h)."""
    h, w = 3, 5
    table = scrambled_sincos((h, w), 4).flatten(0, 1)
    for cell in range(h * w):
        column, row = divmod(cell, h)
        angles = torch.tensor([column, row], dtype=torch.float32)
        expected = torch.stack([angles.sin(), angles.cos()], 1).flatten()
        torch.testing.assert_close(table[cell], expected)


def test_crops_are_the_first_cells():
    whole = made((6, 6)).table
    assert torch.equal(made((4, 3), sides=(6, 6))(), whole[:4, :3].flatten(0, 1))


def test_interpolation_keeps_the_corners():
    layer = made((5, 3), kind="sum", sides=(4, 4), fit="interpolate")
    rows, table = layer().view(5, 3, 8), layer._combined()
    for mine, theirs in ((0, 0), (-1, -1)):
        torch.testing.assert_close(rows[mine, mine], table[theirs, theirs])
    torch.testing.assert_close(rows[2, 1], (table[1:3, 1:3]).mean((0, 1)))  # the middle


@pytest.mark.parametrize("kind", ["sum", "product"])
def test_learned_axes(kind):
    layer = made((2, 3), kind=kind, sides=(4, 4))
    assert layer.axes.shape == (2, 4, 8)
    a, b = layer.axes
    cell = a[1] + b[2] if kind == "sum" else a[1] * b[2]
    torch.testing.assert_close(layer()[5], cell)
    line = made((3,), kind=kind, sides=(4,))
    assert torch.equal(line(), line.axes[0, :3])


def test_a_table_of_patches_may_be_fitted():
    table = PositionTable(FittedPositionsConfig(sides=(4, 4)), (2, 2), 8, lead=1)
    found = table(torch.zeros(1, 5, 8))
    assert not found[0, 0].any()  # a class token lies in no cell
    assert torch.equal(found[0, 1:], made((2, 2), sides=(4, 4))())


def test_tables_that_cannot_be_are_one_line(fails):
    with fails(ValueError, r"sides \(2, 2\) cannot be cropped to the grid \(3, 3\)"):
        made((3, 3), sides=(2, 2))
    with fails(ValueError, "two axes and a multiple of 4"):
        made((3,))
    with fails(ValueError, "give a square"):
        made((2, 3), kind="sum")
