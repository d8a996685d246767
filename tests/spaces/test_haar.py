"""Haar bands in 2D and 3D: exact round trips, the lowest band a mean, clips in pieces."""

import pytest
import torch

from vistok.core.errors import InputError
from vistok.core.shapes import Shape
from vistok.layers.causal_conv import Stream
from vistok.spaces.haar import Haar, HaarConfig


@pytest.mark.parametrize("method", ["haar", "rearrange"])
@pytest.mark.parametrize("patch", [1, 2, 4])
@pytest.mark.parametrize("frames", [None, 1, 9])
def test_round_trip(method, patch, frames):
    sides = (8, 12) if frames is None else (frames, 8, 12)
    space = Haar(HaarConfig(patch=patch, method=method), Shape(3, sides))
    pixels = torch.rand(2, 3, *sides)
    bands = space(pixels)
    assert tuple(bands.shape[1:]) == (space.shape.channels, *space.shape.sides)
    torch.testing.assert_close(space.inverse(bands), pixels, atol=1e-5, rtol=0)
    if method == "haar" and frames is None:
        mean = torch.nn.functional.avg_pool2d(pixels * 2 - 1, patch)
        torch.testing.assert_close(bands[:, :3], mean, atol=1e-6, rtol=0)


def test_pieces_of_a_clip():
    space, clip = Haar(HaarConfig(patch=2), Shape(3, (9, 4, 4))), torch.rand(1, 3, 9, 4, 4)
    there, back, whole = Stream(), Stream(), space(clip)
    pieces = [space(piece, stream=there) for piece in clip.split((3, 2, 4), 2)]
    torch.testing.assert_close(torch.cat(pieces, 2), whole)
    shown = [space.inverse(piece, stream=back) for piece in pieces]
    torch.testing.assert_close(torch.cat(shown, 2), clip, atol=1e-5, rtol=0)


def test_wrong_sizes_are_one_line():
    with pytest.raises(InputError, match=r"takes 1 . k x 4; 5, 9"):
        Haar(HaarConfig(patch=4), Shape(3, (8, 8, 8)))
    with pytest.raises(InputError, match="is not a multiple of patch=4"):
        Haar(HaarConfig(patch=4), Shape(3, (6, 8)))
