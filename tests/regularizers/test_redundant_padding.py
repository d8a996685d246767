"""Redundant token padding: the histogram of kept lengths, of batches and samples."""

import pytest
import torch

from vistok.config import validate
from vistok.config.registry import build
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.regularizers.redundant_padding import RedundantPaddingConfig
from vistok.tokens import TokenSpec

SPEC = TokenSpec(blocks=((16,),), vocab=(8,), prefix="token")


def lengths(count: int = 20_000, step: int = 0, **options) -> torch.Tensor:
    options = {"padding": 12, "floor": 4, "per": "sample"} | options
    part = build(RedundantPaddingConfig(**options))
    return part.draw(SPEC, torch.arange(count), Rng(0, "padding", step), Progress(step, 10)).keep


def test_positions_are_kept_as_often_as_the_formula_says():
    keep, total, floor = lengths(), 28, 4
    assert keep.min() == floor and keep.max() == total
    place = torch.arange(1, total + 1)
    found = (place <= keep[:, None]).double().mean(0)
    expected = (total - place.clamp(min=floor) + 1).double() / (total - floor + 1)
    torch.testing.assert_close(found, expected, atol=0.012, rtol=0)  # three standard deviations
    # The last stored one half of the time, where nested dropout over 16 would rarely show it.
    assert expected[15] == pytest.approx(13 / 25)


def test_lengths_that_double():
    keep = lengths(lengths="doubling")
    found, counts = keep.unique(return_counts=True)
    assert found.tolist() == [4, 8, 16, 28]
    torch.testing.assert_close(counts / len(keep), torch.full((4,), 0.25), atol=0.012, rtol=0)
    assert lengths(lengths="doubling", padding=0, floor=16).unique().tolist() == [16]


def test_one_draw_for_a_batch_by_default():
    assert RedundantPaddingConfig().per == "batch"
    steps = [lengths(8, step, per="batch").unique() for step in range(200)]
    assert all(len(one) == 1 for one in steps)
    assert len(torch.cat(steps).unique()) > 20


def test_what_does_not_fit(fails):
    part = build(validate(RedundantPaddingConfig, {"padding": 2, "floor": 17}))
    with fails(ValueError, "floor=17 is more than the 16 latents"):
        part.check(SPEC)
    with fails(ValueError, "prefix=per_block"):
        part.check(SPEC.model_copy(update={"prefix": "per_block"}))
