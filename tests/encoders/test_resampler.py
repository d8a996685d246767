"""The resampler: queries on grids, absent positions of its memory, and sizes that do not fit."""

import pytest
import torch

from vistok.config import validate
from vistok.core.shapes import Shape
from vistok.encoders.resampler import ResamplerEncoder, ResamplerEncoderConfig
from vistok.layers.resampler import Resampler, ResamplerConfig, spread

SMALL = ResamplerConfig.tiny()


def test_queries_lie_over_the_extent_of_the_memory():
    places = spread((2, 1), (4, 3))
    assert places.tolist() == [[0.5, 1.0], [2.5, 1.0]]


def test_what_is_absent_is_not_read():
    torch.manual_seed(0)
    resampler, memory = Resampler(SMALL, 8, (3,)), torch.randn(2, 5, 8)
    present = torch.tensor([[True, True, False, False, False], [False] * 5])
    other = torch.where(present[..., None], memory, torch.full_like(memory, 9.0))
    torch.testing.assert_close(resampler(memory, present), resampler(other, present))
    short = resampler(memory[:1, :2])
    torch.testing.assert_close(resampler(memory, present)[:1], short)
    assert resampler(memory, present).isfinite().all()  # of a sample where nothing is there


def test_rotary_positions_tell_cells_apart():
    torch.manual_seed(0)
    memory, order = torch.randn(1, 6, 8), torch.tensor([5, 4, 3, 2, 1, 0])
    blind = Resampler(SMALL, 8, (2,))
    torch.testing.assert_close(blind(memory[:, order]), blind(memory))
    config = SMALL.model_copy(update={"rotary": True})
    placed = Resampler(config, 8, (1, 1, 2), (1, 2, 3))
    assert not torch.allclose(placed(memory[:, order]), placed(memory))


def test_frames_of_one_position_see_each_other():
    """Without the mixing transformer and the queries the cells are Divot's temporal encoder's."""
    torch.manual_seed(0)
    config = validate(
        ResamplerEncoderConfig,
        {
            "patches": {"size": 1, "positions": "none"},
            "over_time": {"transformer": {"width": 8, "depth": 1, "heads": 2, "mlp": "quick_gelu"}},
            "pool": [1, 2],
            "queries": [2, 1, 2],
            "resampler": {"width": 8, "depth": 1, "heads": 2, "head_width": 4, "rotary": True},
        },
    )
    encoder = ResamplerEncoder(config, Shape(4, (3, 2, 4)), 6)
    x = torch.randn(1, 4, 3, 2, 4)
    found = encoder(x)
    assert found.values.shape == (1, 4, 6) and encoder.grids == ((2, 1, 2),)
    moved = x.clone()
    moved[:, :, 2, 0, 0] += 1.0  # one position in the last frame: the left half alone moves
    change = (encoder._cells(moved) - encoder._cells(x)).abs().sum(-1).view(3, 2)
    assert (change[:, 0] > 0).all() and (change[:, 1] == 0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pool": [4, 1]}, "pool=.4, 1. of cells on a grid .2, 2.; expected fewer"),
        ({"over_time": {}}, "over_time needs clips"),
        ({"queries": [1, 2, 2]}, "queries=.1, 2, 2.: the patches have 2 axes"),
        ({"resampler": {"rotary": True}}, "resampler.rotary: queries=.64,. and a memory"),
    ],
)
def test_sizes_that_do_not_fit_are_one_line(fails, settings, message):
    config = validate(ResamplerEncoderConfig, {"patches": {"size": 4}, **settings})
    with fails(ValueError, message):
        ResamplerEncoder(config, Shape(3, (8, 8)), 4)


def test_rows_of_a_head_come_in_pairs(fails):
    with fails(ValueError, "head_width=3: expected an even number"):
        validate(ResamplerConfig, {"head_width": 3})
    with fails(ValueError, "patches.class_token=true"):
        validate(ResamplerEncoderConfig, {"patches": {"class_token": True}})
