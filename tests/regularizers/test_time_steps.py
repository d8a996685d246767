"""Nested dropout of clips: one length for all time steps, or one for each."""

import pytest
import torch

from vistok.core.errors import InputError
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.regularizers.nested_dropout import NestedDropout, NestedDropoutConfig
from vistok.tokens import TokenSpec

SPEC = TokenSpec(blocks=((16,),) * 3, vocab=(4,), prefix="per_block")


def drawn(**keys):
    part = NestedDropout(NestedDropoutConfig(**keys))
    part.check(SPEC)
    return part.draw(SPEC, torch.arange(400), Rng(0, "test"), Progress(0, 1)).keep


def test_each_time_step_draws_its_own_length():
    assert drawn().shape == (400,)
    keep = drawn(time_steps="each", lengths="uniform", first_lengths="pow2")
    assert keep.shape == (400, 3)
    assert set(keep[:, 0].tolist()) == {1, 2, 4, 8, 16}
    assert set(keep[:, 1].tolist()) == set(keep[:, 2].tolist()) == set(range(1, 17))
    assert torch.corrcoef(keep.float().T).fill_diagonal_(0).abs().max() < 0.2
    assert (drawn(time_steps="each", full=1.0) == 16).all()


def test_lengths_of_the_video_code():
    halved = NestedDropoutConfig(lengths="uniform_halved").shares(12)
    expected = torch.zeros(12, dtype=torch.float64)
    expected[[0, 2, 5, 11]] = torch.tensor([1, 2, 3, 6], dtype=torch.float64) / 12
    assert torch.allclose(halved, expected)
    falling = NestedDropoutConfig(lengths="power_law", power=0.5).shares(9)
    assert torch.allclose(falling[0] / falling[8], torch.tensor(3.0, dtype=torch.float64))


def test_keys_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="first_lengths is a key of time_steps=each"):
        NestedDropoutConfig(first_lengths="pow2")
    with pytest.raises(ValueError, match="expected tail=hard"):
        NestedDropoutConfig(time_steps="each", tail="soft")
    spec = TokenSpec(blocks=((16,),), vocab=(4,), prefix="token")
    with pytest.raises(InputError, match="use time_steps=shared"):
        NestedDropout(NestedDropoutConfig(time_steps="each")).check(spec)
