"""Windows that the perceptual loss sees at their own resolution."""

import pytest
import torch

from vistok.core.errors import InputError
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.losses.perceptual import PerceptualConfig, PerceptualLoss
from vistok.losses.windows import windows


def test_corners_by_hand():
    image = torch.arange(36.0).view(1, 1, 6, 6)
    uniform = torch.tensor([[[0.0, 0.0], [0.999, 0.5], [1.0, 1.0]]])
    cut = windows(image, uniform, 4)
    assert cut.shape == (3, 1, 4, 4)
    assert cut[:, 0, 0, 0].tolist() == [
        0.0,
        13.0,
        14.0,
    ]  # of 3 places each way: (0, 0), (2, 1), (2, 2)


def test_too_small_images_are_one_line():
    with pytest.raises(InputError, match="windows of 32 pixels do not fit into images of 16x40"):
        windows(torch.rand(1, 3, 16, 40), torch.zeros(1, 1, 2), 32)


def test_draws_belong_to_the_sample():
    loss = PerceptualLoss(PerceptualConfig(network="vistok-cnn", windows=3))
    progress = Progress(step=4, steps=10)
    both = loss.draw(torch.tensor([7, 9]), Rng(0, "loss", 4), progress).uniform
    one = loss.draw(torch.tensor([9]), Rng(0, "loss", 4), progress).uniform
    assert both.shape == (2, 3, 2) and torch.equal(both[1], one[0])
