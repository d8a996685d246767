"""Patch kernels and position tables at other sizes."""

import pytest
import torch

from vistok.layers.resample import resample_kernel, resample_positions
from vistok.layers.resize import resize


@pytest.mark.parametrize("size", [(6, 6), (8, 8), (5, 7)])
def test_larger_kernels_answer_to_resized_patches_as_before(size):
    torch.manual_seed(0)
    kernel, patch = torch.randn(4, 3, 5, 5), torch.randn(2, 3, 5, 5)
    new = resample_kernel(kernel, size)
    assert new.shape == (4, 3, *size)
    larger = resize(patch, size, "bicubic", antialias=True)
    products = lambda x, k: torch.einsum("bchw,dchw->bd", x, k)
    torch.testing.assert_close(products(larger, new), products(patch, kernel), atol=1e-4, rtol=1e-4)


def test_smaller_kernels_are_least_squares():
    torch.manual_seed(0)
    kernel = torch.randn(1, 1, 6, 6)
    new = resample_kernel(kernel, (4, 4))
    # B^T k' = k in the sense of least squares: what is left over is orthogonal to B^T's columns.
    basis = resize(torch.eye(36).reshape(36, 1, 6, 6), (4, 4), "bicubic").flatten(1)
    rest = basis @ new.flatten() - kernel.flatten()
    torch.testing.assert_close(basis.T @ rest, torch.zeros(16), atol=1e-4, rtol=0)


def test_equal_sizes_are_left_alone():
    kernel, table = torch.randn(2, 3, 4, 4), torch.randn(10, 5)
    assert resample_kernel(kernel, (4, 4)) is kernel
    assert resample_positions(table, (3, 3)) is table


def test_positions_keep_leading_rows_and_follow_the_grid():
    torch.manual_seed(0)
    rows = torch.arange(4.0)[:, None].expand(4, 4)  # channel 0: the row of a cell; 1: its column
    table = torch.cat([torch.full((1, 2), 9.0), torch.stack([rows, rows.T], -1).reshape(16, 2)])
    new = resample_positions(table, (8, 6))
    assert new.shape == (49, 2) and torch.equal(new[0], table[0])
    cells = new[1:].reshape(8, 6, 2)
    assert torch.allclose(cells[..., 0], cells[:, :1, 0], atol=1e-5)  # rows alone vary with rows
    assert torch.allclose(cells[..., 1], cells[:1, :, 1], atol=1e-5)
    assert (cells[:, 0, 0].diff() > 0).all() and (cells[0, :, 1].diff() > 0).all()


def test_a_table_without_a_square_is_refused(fails):
    with fails(ValueError, "12 rows are no square behind 1 leading ones"):
        resample_positions(torch.randn(12, 4), (2, 2))
