"""iFID's draws and weights on numbers made by hand."""

import math

import numpy as np
import pytest
import torch

from vistok.metrics.interpolated import batch_taken, chosen_candidate, slerp, taken
from vistok.metrics.perturbed import draws


def test_a_token_is_taken_up_to_the_share(fails):
    u = np.array([0.0, 0.25, 0.5, 0.75])
    for share, expected in ((0, [0, 0, 0, 0]), (0.25, [1, 1, 0, 0]), (1, [1, 1, 1, 1])):
        assert taken(u, share).tolist() == [bool(one) for one in expected]
    with fails(ValueError, "share=1.5", "0..1"):
        taken(u, 1.5)


def test_draws():
    """The check values of docs/ideas/ifid.md."""
    table = {0: (29, 53, 122), 1: (13, 48, 108), 49999: (30, 49, 111)}
    for image, counts in table.items():
        own = [batch_taken(torch.tensor([image]), 256, s) for s in (0.125, 0.25, 0.5)]
        assert tuple(int(one.sum()) for one in own) == counts
    first = batch_taken(torch.tensor([0]), 256, 0.5)[0, :, 0].nonzero()[:6, 0]
    assert first.tolist() == [0, 1, 2, 5, 8, 9]
    more, fewer = (batch_taken(torch.arange(9), 16, s) for s in (0.5, 0.25))
    assert (more | ~fewer).all() and more.sum() > fewer.sum()
    two = batch_taken(torch.tensor([3]), 8, 0.5, branches=2)[0]
    assert two.T.flatten().tolist() == (draws(0, 3, 16)[0] <= 0.5).tolist()
    assert batch_taken(torch.tensor([], dtype=torch.int64), 8, 0.5).shape == (0, 8, 1)


def test_candidates_are_drawn_by_their_distance():
    count = 4000
    squares = torch.tensor([[0.0, math.log(2), math.log(4)]]).expand(count, 3)
    picked = chosen_candidate(squares, torch.arange(count))
    shares = picked.bincount(minlength=3) / count
    assert shares.tolist() == pytest.approx([4 / 7, 2 / 7, 1 / 7], abs=0.02)
    u = draws(0, 5, 1)[0][0]
    expected = 0 if u < 4 / 7 else 1 if u < 6 / 7 else 2
    assert int(chosen_candidate(squares[:1], torch.tensor([5]))) == expected
    near = torch.tensor([[0.0, 900.0]])
    assert chosen_candidate(near.expand(50, 2), torch.arange(50)).sum() == 0


def test_slerp():
    a, b = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    root = math.sqrt(0.5)
    assert slerp(a, b, 0.5).tolist() == [pytest.approx([2 * root, 4 * root])]
    assert slerp(a, b, 0.0).tolist() == [pytest.approx([2, 0])]
    assert slerp(a, b, 1.0)[0].tolist() == pytest.approx([0, 4])
    third = slerp(a, b, 1 / 3)[0].tolist()
    assert third == pytest.approx([2 * math.sin(math.pi / 3), 4 * math.sin(math.pi / 6)])
    assert slerp(a, 3 * a, 0.5).tolist() == [[4, 0]]  # one direction: along the line
    assert slerp(a, 0 * a, 0.5).isfinite().all()
