"""`Tokenizer.preprocess` and `to_pil`: any image in, images of PIL out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from vistok.config import UserError
from vistok.core.errors import InputError
from vistok.core.shapes import Shape
from vistok.data.base import BadSample
from vistok.data.decode.images import read
from vistok.data.decode.transforms import Transform, TransformConfig
from vistok.data.preprocessing import preprocess, to_pil

WIDE = np.zeros((8, 16, 3), np.uint8)
WIDE[:, 4:12] = (255, 0, 0)  # red inside the center crop, black at the ends


def test_every_kind_of_input_gives_the_same_pixels(make_tokenizer, tmp_path):
    tokenizer = make_tokenizer()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 31, 3), np.uint8))
    image.save(tmp_path / "a.png")
    path = tmp_path / "a.png"
    given = [path, str(path), image, np.asarray(image), Image.open(path)]
    pixels = tokenizer.preprocess(given)
    assert pixels.shape == (5, 3, 8, 8) and pixels.dtype == torch.float32
    assert all(torch.equal(one, pixels[0]) for one in pixels)
    assert torch.equal(tokenizer.preprocess(image), pixels[:1])
    data = Transform(TransformConfig(size=8), augment=False)(read(path), 0)  # as evaluation does
    assert torch.equal(pixels[0], data.float() / 255)
    assert len(tokenizer.encode(pixels)) == 5


def test_three_ways_to_a_square():
    shape = Shape(3, (8, 8))
    crop, stretch, pad = (preprocess(WIDE, shape, how)[0] for how in ("crop", "stretch", "pad"))
    red, white = torch.tensor([1.0, 0, 0]), torch.ones(3)
    assert torch.equal(crop, red[:, None, None].expand(3, 8, 8))
    assert stretch[0, :, 0].max() < 0.1 and torch.equal(stretch[:, 4, 4], red)
    assert torch.equal(pad[:, 0, 3], white) and torch.equal(pad[:, 7, 3], white)
    assert torch.equal(pad[:, 4, 4], red) and pad[:, 4, 0].max() < 0.1


def test_orientation_gray_and_transparency(tmp_path):
    shape = Shape(3, (8, 8))
    half = np.zeros((8, 8, 3), np.uint8)
    half[:4] = 255  # white above
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(half).save(tmp_path / "turned.png", exif=exif)
    for one in (tmp_path / "turned.png", Image.open(tmp_path / "turned.png")):
        assert preprocess(one, shape)[0, 0, 0, 0] == 0 and preprocess(one, shape)[0, 0, 7, 0] == 1
    clear = np.zeros((8, 8, 4), np.uint8)  # black, and wholly transparent
    assert preprocess(clear, shape).min() == 1
    assert preprocess(Image.fromarray(clear), shape).min() == 1
    assert preprocess(half[..., 0], shape)[0, :, 0, 0].tolist() == [1, 1, 1]


def test_clips():
    shape = Shape(3, (2, 8, 8))
    clip = np.stack([WIDE, WIDE // 5, WIDE])
    pixels = preprocess([clip, clip], shape)
    assert pixels.shape == (2, 3, 2, 8, 8) and pixels[0, 0, 1].max().item() == pytest.approx(0.2)
    frames = to_pil(pixels)
    assert len(frames) == 2 and len(frames[0]) == 2 and frames[0][1].getpixel((4, 4)) == (51, 0, 0)


def test_images_of_pil_come_back():
    pixels = torch.rand(2, 3, 4, 5)
    images = to_pil(pixels.requires_grad_() * 3 - 1)  # beyond 0..1, and of a graph
    assert [image.size for image in images] == [(5, 4)] * 2
    back = torch.stack([torch.tensor(np.asarray(one)).movedim(-1, 0) for one in images])
    assert torch.equal(back, ((pixels * 3 - 1).clamp(0, 1) * 255).round().byte())
    assert len(to_pil(pixels[0])) == 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "expected at least one image"),
        (torch.zeros(1, 3, 8, 8), r"images\[0\]: a tensor .*go into `encode` as they are"),
        (WIDE.astype(np.float32), "shape .8, 16, 3. and type float32; expected uint8"),
        ([WIDE, None], r"images\[1\]: a NoneType; expected an image of PIL, a path"),
        (Image.new("F", (4, 4)), r"images\[0\]: has pixels of mode F"),
        ("nowhere.png", "nowhere.png: cannot be read"),
    ],
)
def test_wrong_inputs_are_one_line(fails, given, words):
    with fails(UserError, words):
        preprocess(given, Shape(3, (8, 8)))


def test_other_mistakes_are_one_line(fails, tmp_path):
    with fails(InputError, "resize='squash': expected crop, stretch, pad"):
        preprocess(WIDE, Shape(3, (8, 8)), "squash")
    with fails(InputError, "this tokenizer takes clips; expected a path of a video"):
        preprocess(WIDE, Shape(3, (2, 8, 8)))
    with fails(InputError, "1 frames; this tokenizer takes clips of 2"):
        preprocess(WIDE[None], Shape(3, (2, 8, 8)))
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    with fails(BadSample, "cut.jpg: cannot be decoded"):
        preprocess(tmp_path / "cut.jpg", Shape(3, (8, 8)))
    with fails(InputError, r"shape \(1, 4, 8, 8\).*expected floats"):
        to_pil(torch.zeros(1, 4, 8, 8))
    with fails(InputError, "not finite"):
        to_pil(torch.full((1, 3, 2, 2), torch.nan))
