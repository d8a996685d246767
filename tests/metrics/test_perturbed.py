"""pFID-v1: the recipe's check values, grid, subset rule, order of branches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vistok.metrics.perturbed import (
    FULL_GRID,
    QUICK_GRID,
    Cell,
    batch_ranks,
    clip,
    draws,
    expected_change,
    quick_subset,
    ranks,
    relative,
)

# image: u[0..2], v[0..2], floor(v * 200)[0..2], count u <= 0.5, sum floor(v * 360)
CHECKS = {
    0: (
        (0.011546754286331562, 0.24154919656271812, 0.11142585551493822),
        (0.5797381823242869, 0.5020456695887757, 0.3808443506968179),
        (115, 100, 76),
        122,
        46952,
    ),
    1: (
        (0.8133540609793564, 0.7513314251083365, 0.6716490436969984),
        (0.3912176063348114, 0.1421010462071165, 0.6816947874992884),
        (78, 28, 136),
        108,
        46481,
    ),
    49999: (
        (0.5414794777037671, 0.5888449763966667, 0.794524978067668),
        (0.12892950442853157, 0.7136828728547965, 0.762843980023166),
        (25, 142, 152),
        111,
        45222,
    ),
}


@pytest.mark.parametrize("image", CHECKS)
def test_check_values(image):
    u, v = draws(0, image, 256)
    first_u, first_v, first_ranks, below, total = CHECKS[image]
    assert u.dtype == v.dtype == np.float64 and u.shape == v.shape == (256,)
    assert tuple(u[:3]) == first_u and tuple(v[:3]) == first_v
    assert tuple(ranks(u, v, 1.0, 200)[:3]) == first_ranks
    assert (u <= 0.5).sum() == below
    assert ranks(u, v, 1.0, 360).sum() == total
    assert ((ranks(u, v, 0.5, 360) > 0) <= (u <= 0.5)).all()


def test_nothing_changes_without_share_or_neighbours():
    u, v = draws(0, 3, 1000)
    assert not ranks(u, v, 0.0, 200).any()
    assert not ranks(u, v, 1.0, 1).any()


def test_share_of_changed_tokens():
    for alpha, delta in (*FULL_GRID, Cell(0.5, 2)):
        changed = [(ranks(*draws(0, i, 4096), alpha, delta) > 0).mean() for i in range(60)]
        assert np.mean(changed) == pytest.approx(expected_change(alpha, delta), rel=0.005)
    assert expected_change(0.5, 2) == 0.25


def test_grids():
    assert len(set(FULL_GRID)) == 15 and set(QUICK_GRID) <= set(FULL_GRID)
    assert {c.alpha for c in FULL_GRID} == {0.5, 0.6, 0.7, 0.8, 0.9}
    assert {c.delta for c in FULL_GRID} == {200, 280, 360}
    assert clip(QUICK_GRID, 256) == (Cell(0.5, 200), Cell(0.7, 256), Cell(0.9, 256))


def test_relative_grid():
    assert relative(QUICK_GRID, 4096) == QUICK_GRID
    assert [c.delta for c in relative(QUICK_GRID, 16384)] == [800, 1120, 1440]
    assert [c.delta for c in relative(QUICK_GRID, 1000)] == [49, 68, 88]
    assert [c.delta for c in relative(QUICK_GRID, 8)] == [2, 2, 2]
    assert [c.delta for c in relative(QUICK_GRID, 1)] == [1, 1, 1]


def test_quick_subset():
    indices, note = quick_subset(50_000)
    assert note is None and len(indices) == 5_000
    assert indices[:3].tolist() == [0, 10, 20] and indices[-1] == 49_990
    assert np.array_equal(quick_subset(1_281_167)[0], indices)
    indices, note = quick_subset(1_200)
    assert np.array_equal(indices, np.arange(1_200)) and "all 1200 images" in note


def test_batches_follow_the_images_and_branches():
    cell = Cell(0.7, 50)
    whole = batch_ranks(torch.tensor([5, 9, 2]), 16, cell, branches=2, seed=3)
    assert whole.shape == (3, 16, 2) and whole.dtype == torch.int64
    assert torch.equal(batch_ranks(torch.tensor([2]), 16, cell, branches=2, seed=3), whole[2:])
    flat = ranks(*draws(3, 9, 32), *cell)
    assert whole[1, :, 0].tolist() == flat[:16].tolist()
    assert whole[1, :, 1].tolist() == flat[16:].tolist()
    assert batch_ranks(torch.tensor([], dtype=torch.long), 4, cell).shape == (0, 4, 1)


def test_refusals_are_one_line():
    with pytest.raises(ValueError, match="expected numbers of 0 or more"):
        draws(0, -1, 4)
    with pytest.raises(ValueError, match=r"expected alpha in 0\.\.1"):
        ranks(np.zeros(1), np.zeros(1), 1.5, 4)
