"""Differentiable augmentation and the fading blur on hand-made numbers."""

import pytest
import torch

from vistok.losses.diffaug import DiffAugConfig, augment, blurred, colored, cut, fade, translated


def ramp(side: int = 8) -> torch.Tensor:
    """[2, 3, side, side]: pixel (y, x) holds 1 + y * side + x."""
    return (1 + torch.arange(side * side).float()).view(1, 1, side, side).repeat(2, 3, 1, 1)


def test_translation_moves_whole_pixels_and_lets_zeros_in():
    x = ramp()
    # A share of 1/4 of 8 pixels: shifts of -2..2, five of equal probability.
    down, right = torch.tensor([0.0, 0.5]), torch.tensor([0.99, 0.5])
    moved = translated(x, down, right, 0.25)
    assert torch.equal(moved[1], x[1])
    expected = torch.zeros(8, 8)
    expected[2:, :6] = x[0, 0, :6, 2:]
    assert torch.equal(moved[0, 0], expected)


def test_color_in_its_order():
    x = torch.tensor([[0.2, 0.4], [0.0, -0.2], [0.4, 0.4]]).view(1, 3, 1, 2)
    b, s, c = (torch.tensor([value]) for value in (0.75, 0.25, 0.9))
    gray = lambda y: y.mean(1, keepdim=True)
    y = x + 0.25
    y = (y - gray(y)) * 0.5 + gray(y)
    y = (y - y.mean()) * 1.4 + y.mean()
    torch.testing.assert_close(colored(x, b, s, c), y)
    half = torch.tensor([0.5])
    torch.testing.assert_close(colored(x, half, half, half), x)


@pytest.mark.parametrize(("share", "side"), [(0.25, 2), (0.375, 3)])
def test_cutout_is_a_rectangle_that_the_border_may_cut(share, side):
    x = torch.ones(3, 1, 8, 8)
    places = torch.tensor([0.0, 0.5, 0.999])
    kept = cut(x, places, places, share)
    holes = [8 * 8 - int(image.sum()) for image in kept]
    # An odd rectangle has its center anywhere in the image, an even one also behind its end.
    assert holes[1] == side * side and holes[0] == (side - side // 2) ** 2
    assert kept[1, 0, 4, 4] == 0 and kept[0, 0, 0, 0] == 0 and kept[2, 0, -1, -1] == 0
    assert torch.equal(cut(x, places, places, 0.0), x)


def test_gates_open_each_for_all_images():
    x = torch.rand(2, 3, 16, 16) * 2 - 1
    u = torch.rand(2, 10)
    config = DiffAugConfig(prob=0.5)
    closed = u.clone()
    closed[:, :3] = 0.51
    assert torch.equal(augment(x, closed, config), x)
    for gate in range(3):
        one = closed.clone()
        one[:, gate] = 0.5
        assert not torch.equal(augment(x, one, config), x)
    u[:, :3] = 0.0
    off = DiffAugConfig(translation=0, color=False, cutout=0)
    assert torch.equal(augment(x, u, off), x)
    x.requires_grad_()
    augment(x, u, config).sum().backward()
    assert x.grad.isfinite().all() and x.grad.abs().sum() > 0


def test_color_first_leaves_the_border_gray():
    x, u = torch.rand(2, 3, 16, 16) + 0.5, torch.full((2, 10), 0.9)
    then = augment(x, u, DiffAugConfig(cutout=0, first="color"))
    both = colored(x, u[:, 5], u[:, 6], u[:, 7])
    torch.testing.assert_close(then, translated(both, u[:, 3], u[:, 4], 0.125))
    assert (then == 0).any() and not (augment(x, u, DiffAugConfig(cutout=0)) == 0).any()


def test_blur_fades_to_nothing():
    assert [fade(step, 4, 3) for step in (0, 4, 5, 8, 20)] == [1, 1, 0.75, 0, 0]
    x = torch.rand(1, 3, 16, 12)
    assert torch.equal(blurred(x, 0.0), x) and torch.equal(blurred(x, 0.1), x)  # under a pixel
    soft, softer = blurred(x, 0.3), blurred(x, 1.0)
    assert x.var() > soft.var() > softer.var() and softer.shape == x.shape
    torch.testing.assert_close(blurred(torch.ones(1, 3, 9, 9), 1.0), torch.ones(1, 3, 9, 9))
    point = torch.zeros(1, 1, 33, 33)
    point[0, 0, 16, 16] = 1
    width = (33 / 2) ** 0.5 * 0.25  # about one pixel: three neighbours on either side
    row = blurred(point, 0.25)[0, 0, 16]
    assert int((row > 0).sum()) == 7
    assert (row[17] / row[16]).item() == pytest.approx(2 ** -(width**-2))
    assert blurred(torch.rand(1, 3, 4, 4), 1.0).isfinite().all()  # wider than such an image
