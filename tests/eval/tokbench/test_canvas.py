"""Images on squares and back, against PIL; files of their formats; boxes."""

import io

import numpy as np
import pytest
from PIL import Image

from vistok.core.errors import InputError
from vistok.eval.tokbench.canvas import Place, as_stored, crop, off_square, on_square, place_of


def noise(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def test_sides_are_rounded_up_and_an_odd_pixel_is_right_and_below():
    # 32 * min(64 / 90, 64 / 32) = 22.75..., 41 black rows, 20 of them above.
    assert place_of((90, 32), 64) == Place((90, 32), (64, 23), (0, 20))
    assert place_of((32, 90), 64) == Place((32, 90), (23, 64), (20, 0))
    assert place_of((10, 10), 64) == Place((10, 10), (64, 64), (0, 0))  # small ones are enlarged


def test_rounding_up_is_that_of_floating_point():
    """273 * 256 / 364 is 192, but 273 * (256 / 364) is a little more."""
    assert place_of((364, 273), 256) == Place((364, 273), (256, 193), (0, 31))


def test_a_side_may_come_out_a_pixel_larger_than_the_square():
    """187 * (96 / 187) is a little above 96: the extra pixel is cut, and comes back black."""
    image = noise(187, 187)
    place = place_of(image.size, 96)
    assert place == Place((187, 187), (97, 97), (-1, -1))
    square, _ = on_square(image, 96)
    scaled = np.asarray(image.resize((97, 97), Image.Resampling.LANCZOS))
    assert square.size == (96, 96) and np.array_equal(np.asarray(square), scaled[1:, 1:])
    cut = np.zeros((97, 97, 3), np.uint8)
    cut[1:, 1:] = np.asarray(square)
    back = Image.fromarray(cut).resize(image.size, Image.Resampling.LANCZOS)
    assert np.array_equal(np.asarray(off_square(square, place)), np.asarray(back))


@pytest.mark.parametrize("sides", [(90, 32), (31, 77), (64, 64), (9, 20)])
def test_scaled_pasted_and_cut_as_pil_does(sides):
    image = noise(*sides)
    square, place = on_square(image, 64)
    (x, y), (w, h) = place.corner, place.scaled
    scaled = np.asarray(image.resize((w, h), Image.Resampling.LANCZOS))
    expected = np.zeros((64, 64, 3), np.uint8)
    expected[y : y + h, x : x + w] = scaled
    assert np.array_equal(np.asarray(square), expected)
    back = Image.fromarray(scaled).resize(sides, Image.Resampling.LANCZOS)
    assert np.array_equal(np.asarray(off_square(square, place)), np.asarray(back))


def test_an_image_of_the_squares_own_side_is_untouched():
    image = noise(64, 64)
    square, place = on_square(image, 64)
    assert np.array_equal(np.asarray(off_square(square, place)), np.asarray(image))


def test_files_are_written_as_their_names_say():
    image = noise(40, 30)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=75)  # PIL's default
    published = np.asarray(as_stored(image, "a/b.JPG", "published"))
    assert np.array_equal(published, np.asarray(Image.open(file)))
    assert not np.array_equal(published, np.asarray(image))
    for name, stored in (("b.png", "published"), ("b.jpg", "exact"), ("b.what", "exact")):
        assert np.array_equal(np.asarray(as_stored(image, name, stored)), np.asarray(image))
    with pytest.raises(InputError, match=r"no image format ends in '\.what'"):
        as_stored(image, "b.what", "published")


def test_boxes_are_truncated_and_end_before_their_last_edge():
    pixels = np.arange(6 * 8 * 3).reshape(6, 8, 3)
    assert np.array_equal(crop(pixels, (1.9, 2.9, 4.99, 5.0)), pixels[2:5, 1:4])
    assert np.array_equal(crop(pixels, (5, 3, 100, 100)), pixels[3:, 5:])  # cut at the edge


@pytest.mark.parametrize("box", [(3, 3, 3, 5), (8, 0, 9, 2), (5, 1, 2, 4), (-2, 0, 4, 4)])
def test_a_box_without_pixels_is_an_error(box):
    with pytest.raises(InputError, match="holds no pixel of an image of 8x6"):
        crop(np.zeros((6, 8, 3)), box)
