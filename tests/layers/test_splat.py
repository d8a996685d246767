"""The renderer by hand, its limits, and the norm by deviation."""

import torch

from vistok.layers.splat import placed, render
from vistok.layers.tiles import DeviationNorm, cut, join


def test_one_gaussian_by_hand():
    token = torch.tensor([[[0.5, 0.25, 0.3, 0.0, 0.5, 2.0, -1.0]]])
    found = render(token, (5, 5), reach=3.0)[0]
    dx, dy = (0.5 - 0.0) / 0.5, (0.0 - 0.5) / 0.25  # column 3, row 2
    q = dx * dx - 2 * 0.3 * dx * dy + dy * dy
    weight = torch.exp(torch.tensor(-q / (2 * (1 - 0.09))))
    torch.testing.assert_close(found[:, 2, 3], weight * torch.tensor([2.0, -1.0]))
    assert found[0, 3, 2] == 2.0  # its center
    assert (render(token, (5, 5), reach=1.0)[0, :, 2, 3] == 0).all()  # two sigmas away


def test_hidden_tokens_add_nothing_and_chunks_add_up(monkeypatch):
    torch.manual_seed(0)
    tokens = torch.rand(2, 7, 9) * 0.8 + 0.1
    present = torch.arange(7).expand(2, -1) < 4
    whole = render(tokens, (6, 8), present=present)
    torch.testing.assert_close(whole, render(tokens[:, :4], (6, 8)))
    monkeypatch.setattr("vistok.layers.splat._AT_ONCE", 2 * 48 * 3)
    torch.testing.assert_close(render(tokens, (6, 8), present=present), whole)


def test_limits_of_a_gaussian_are_finite():
    tokens = torch.tensor([[[0.0, 1.0, 1.0, 0.1, -1.0, 1.0], [1.0, 0.0, -1.0, 1.0, 0.3, 1.0]]])
    tokens.requires_grad_()
    found = render(tokens, (8, 8))
    found.sum().backward()
    assert found.isfinite().all() and tokens.grad.isfinite().all()


def test_tiles_of_tokens_and_maps():
    tokens = torch.tensor([0.4, 0.2, 0.5, -1.0, 1.0, 7.0]).expand(1, 4, 1, 6)
    found = placed(tokens, 2)[0]
    corners = torch.tensor([[-1.0, 0.0], [0.0, 0.0], [-1.0, 1.0], [0.0, 1.0]])
    torch.testing.assert_close(found[:, 3:5], corners)
    torch.testing.assert_close(found[0, :3], torch.tensor([0.2, 0.1, 0.5]))
    x = torch.rand(2, 3, 4, 6)
    assert torch.equal(join(cut(x, 2), 2), x) and torch.equal(cut(x, 2)[1], x[0, :, :2, 3:])


def test_the_norm_divides_by_the_deviation_plus_eps():
    torch.manual_seed(0)
    x = torch.randn(2, 8, 5, 5) * 3 + 1
    norm = DeviationNorm(4, 8, eps=0.5)
    groups = x.view(2, 4, -1)
    by_hand = (groups - groups.mean(-1, keepdim=True)) / (
        groups.std(-1, correction=0, keepdim=True) + 0.5
    )
    torch.testing.assert_close(norm(x), by_hand.view_as(x))
    norm.tiles = 2  # equal tiles have equal statistics, wherever they are enlarged to
    tile = torch.randn(1, 8, 4, 4)
    torch.testing.assert_close(norm(tile.repeat(1, 1, 2, 2))[:, :, :4, :4], norm_of(norm, tile))


def norm_of(norm, x):
    plain = DeviationNorm(norm.groups, len(norm.weight), norm.eps)
    return plain(x)
