"""Facts that a data set states, and the one line where a reader needs other pixels."""

import pytest

from vistok.config.registry import build
from vistok.data import PhotosConfig
from vistok.data.base import mismatch
from vistok.tokens import TokenSpec


def test_sides_of_images_and_clips(numbers):
    assert numbers(4).sides == (2, 2)
    assert build(PhotosConfig(size=8)).open("val").sides == (8, 8)
    assert build(PhotosConfig(size=8, frames=3)).open("val").sides == (3, 8, 8)


@pytest.mark.parametrize(
    ("frames", "wanted", "expected"),
    [
        (None, (8, 8), None),
        (3, (3, 8, 8), None),
        (
            None,
            (16, 16),
            "data: gives images of 8x8 pixels; this tokenizer takes images of 16x16 pixels: set "
            "data.size=16",
        ),
        (
            3,
            (8, 8),
            "data: gives clips of 3 frames of 8x8 pixels; this tokenizer takes images of 8x8 "
            "pixels: set data.frames=null",
        ),
        (
            None,
            (4, 16, 24),
            "data: gives images of 8x8 pixels; this tokenizer takes clips of 4 frames of 16x24 "
            "pixels: set data.size=[16,24] data.frames=4",
        ),
    ],
)
def test_a_mismatch_is_one_line_that_says_what_to_set(frames, wanted, expected):
    data = build(PhotosConfig(size=8, frames=frames)).open("val")
    assert mismatch(data, wanted, "this tokenizer") == expected


def test_tokens_have_no_sides(numbers):
    data = numbers(4)
    data.size, data.spec = None, TokenSpec(blocks=((2,),), vocab=(9,))
    assert data.sides is None
    assert "cached tokens; a classifier takes images of 8x8" in mismatch(
        data, (8, 8), "a classifier"
    )
