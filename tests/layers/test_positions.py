"""Sin-cos tables, RoPE and position tables."""

import math

import pytest
import torch
import torch.nn.functional as F

from vistok.layers.positions import (
    PositionTable,
    SharedPositions,
    grid_positions,
    resample_positions,
    rotary_table,
    rotate,
    sincos,
)


def test_grid_positions_are_row_major():
    assert grid_positions((2, 3)).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert grid_positions((3,)).tolist() == [[0], [1], [2]]


def test_sincos_by_hand():
    # two axes, four channels each: frequencies 1 and 10000^-1/2 = 0.01
    table = sincos(torch.tensor([[2.0, 3.0]]), 8)[0]
    expected = [f(p * w) for p in (2, 3) for f in (math.sin, math.cos) for w in (1, 0.01)]
    assert table.tolist() == pytest.approx(expected, abs=1e-6)


def test_sincos_fills_left_over_channels_with_zeros():
    table = sincos(grid_positions((2, 2)), 10)
    assert table.shape == (4, 10) and not table[:, 8:].any()


def test_sincos_rows_differ_and_have_one_norm():
    table = sincos(grid_positions((4, 4)), 16)
    assert torch.allclose(table.norm(dim=-1), torch.full((16,), math.sqrt(8)))
    assert len(table.unique(dim=0)) == 16


@pytest.mark.parametrize("kind", ["sincos", "learned", "none"])
def test_position_tables_add_their_first_rows(kind):
    layer = PositionTable(kind, (2, 3), 8)
    x = torch.zeros(2, 4, 8)
    y = layer(x)
    assert torch.equal(y, x if kind == "none" else layer.table[:4].expand(2, 4, 8))
    assert layer(x.bfloat16()).dtype == torch.bfloat16
    assert (len(list(layer.parameters())) == (kind == "learned") and not list(layer.buffers())) or (
        kind == "sincos"
    )


def test_rotation_turns_pairs_by_position_times_frequency():
    rotary = rotary_table(torch.tensor([[3.0]]), 4)  # frequencies 1 and 0.01
    x = torch.tensor([1.0, 0.0, 0.0, 2.0]).view(1, 1, 1, 4)
    expected = [math.cos(3), math.sin(3), -2 * math.sin(0.03), 2 * math.cos(0.03)]
    assert rotate(x, rotary).flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_rotation_keeps_norms_and_sees_only_distances():
    q, k = torch.randn(2, 1, 1, 1, 8).unbind(0)
    positions = torch.arange(20.0)[:, None]
    rotary = rotary_table(positions, 8)
    turned_q, turned_k = (rotate(x.expand(1, 1, 20, 8), rotary)[0, 0] for x in (q, k))
    assert torch.allclose(turned_q.norm(dim=-1), q.norm().expand(20), atol=1e-5)
    scores = turned_q @ turned_k.T
    for offset in range(-19, 20):
        diagonal = scores.diagonal(offset)
        assert torch.allclose(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-4)
    assert not torch.allclose(scores[0, 0], scores[0, 5], atol=1e-2)


def test_axes_share_the_pairs():
    cos, sin = rotary_table(grid_positions((3, 4)), 8)
    assert cos.shape == sin.shape == (12, 4)
    # The first two pairs turn with the row, the others with the column.
    assert torch.equal(cos.view(3, 4, 4)[:, 0, :2], cos.view(3, 4, 4)[:, 3, :2])
    assert torch.equal(cos.view(3, 4, 4)[0, :, 2:], cos.view(3, 4, 4)[2, :, 2:])
    # Left-over pairs are not turned at all.
    cos, sin = rotary_table(grid_positions((3, 4)), 10)
    assert cos[:, 4].eq(1).all() and sin[:, 4].eq(0).all()


@pytest.mark.parametrize(
    ("old", "new"), [((37, 37), (16, 16)), ((4, 6), (5, 3)), ((4, 4), (11, 11))]
)
def test_a_table_is_resized_like_an_image_and_its_lead_stays(old, new):
    table = torch.randn(2 + old[0] * old[1], 8)
    found = resample_positions(table, old, new, lead=2)
    image = table[2:].T.reshape(1, 8, *old)
    expected = F.interpolate(image, new, mode="bicubic", antialias=True, align_corners=False)
    assert torch.equal(found[:2], table[:2])
    assert torch.allclose(found[2:], expected[0].flatten(1).T, atol=1e-5)


def test_an_equal_grid_reads_the_table_itself_and_others_need_two_sides(fails):
    table = torch.randn(6, 8)
    assert SharedPositions((2, 3), (2, 3))(table) is table
    assert SharedPositions((2, 2, 3), (2, 2, 3))(table) is table
    with fails(ValueError, r"the grid \(2, 3\) cannot be read on the grid \(4,\)"):
        SharedPositions((2, 3), (4,))


def test_resized_positions_stay_fp32_under_autocast():
    table = torch.randn(16, 8)
    shared = SharedPositions((4, 4), (3, 3))
    expected = shared(table)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(shared(table), expected)
