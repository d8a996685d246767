"""Rotary positions in physical time: one moment, one angle; only patches and some heads turn."""

import pytest
import torch

from vistok.core.errors import InputError
from vistok.core.records import Condition
from vistok.layers.patch_rotary import PatchRotary, PatchRotaryConfig, frames_of


def test_one_moment_turns_alike_at_every_rate():
    rotary = PatchRotary(PatchRotaryConfig(), 128, 2, "rotary")
    fast, slow = rotary.angles((6, 2, 2), 24.0), rotary.angles((3, 2, 2), 12.0)
    assert torch.allclose(fast.unflatten(0, (6, 4))[::2], slow.unflatten(0, (3, 4)))
    stamps = torch.tensor([0, 2, 4]) * 24 / 24.0  # picked frames, by their numbers before
    assert torch.allclose(rotary.angles_at(stamps, (2, 2)), slow)
    other = rotary.angles((3, 2, 2), 24.0)
    assert not torch.allclose(other, slow)


def test_only_patches_and_the_first_heads_turn():
    config = PatchRotaryConfig(heads=1, dim=12)
    rotary = PatchRotary(config, 32, 2, "rotary")
    fps = torch.tensor([24.0, 12.0])
    cos, sin = rotary.tables((2, 1, 2), 1, 9, Condition(fps=fps), torch.zeros(1))
    assert cos.shape == (2, 2, 9, 8)
    assert (sin[:, 1] == 0).all() and (cos[:, 1] == 1).all()
    assert (sin[:, 0, [0, 5, 6, 7, 8]] == 0).all() and (sin[..., 6:] == 0).all()
    assert not torch.equal(sin[0], sin[1])
    assert torch.equal(sin[0, 0, 1:5, :6], rotary.angles((2, 1, 2), 24.0).sin())


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"rotary\.heads=3: expected at most the 2 heads"):
        PatchRotary(PatchRotaryConfig(heads=3), 32, 2, "rotary")
    with pytest.raises(InputError, match=r"rotary\.dim=20"):
        PatchRotary(PatchRotaryConfig(dim=20), 32, 2, "rotary")


def test_frames_of_a_period():
    assert [frames_of(0.66667, fps, 4) for fps in (24, 30, 60, 120)] == [16, 20, 40, 80]
