import numpy as np
import pytest
import torch
from PIL import Image

from vistok.config import ConfigError, validate
from vistok.data.decode import transforms
from vistok.data.decode.transforms import Transform, TransformConfig, adm_crop


def test_center_of_an_image_that_fits_is_copied(make_image):
    pixels = Transform(TransformConfig(size=30), augment=False)(make_image(), 0)
    assert pixels.dtype == torch.uint8
    expected = np.asarray(make_image())[:, 5:35].transpose(2, 0, 1)
    assert (pixels.numpy() == expected).all()


def test_resize_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    for name in ("bicubic", "bilinear", "lanczos", "box"):
        pixels = Transform(TransformConfig(size=16, filter=name), augment=False)(
            Image.fromarray(stripes), 0
        )
        assert (pixels[:, :, 2:-2].float() - 127.5).abs().max() < 20, name


def test_size_may_be_height_and_width(make_image):
    pixels = Transform(TransformConfig(size=(8, 24)), augment=False)(make_image(300, 50), 0)
    assert pixels.shape == (3, 8, 24)


@pytest.mark.parametrize("crop", ["center", "random", "adm"])
@pytest.mark.parametrize("wh", [(1, 1), (10000, 20), (20, 10000), (1, 3000), (33, 32)])
def test_odd_shapes(make_image, crop, wh):
    pixels = Transform(TransformConfig(size=32, crop=crop), augment=True)(make_image(*wh), 3)
    assert pixels.shape == (3, 32, 32)


def test_strips_are_never_blown_up(make_image, monkeypatch):
    sizes = []
    resize = Image.Image.resize

    def spy(self, size, *args, **kwargs):
        sizes.append(size[0] * size[1])
        return resize(self, size, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "resize", spy)
    for crop in ("center", "random", "adm"):
        Transform(TransformConfig(size=256, crop=crop), augment=True)(make_image(20000, 10), 0)
    assert max(sizes) <= transforms._WIDE


def adm_by_the_book(image: Image.Image, side: int) -> np.ndarray:
    """recipes/pfid.md section 1, in the plainest words."""
    while min(image.size) >= 2 * side:
        image = image.resize(tuple(x // 2 for x in image.size), Image.Resampling.BOX)
    scale = side / min(image.size)
    image = image.resize(tuple(round(x * scale) for x in image.size), Image.Resampling.BICUBIC)
    pixels = np.array(image)
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    return pixels[top : top + side, left : left + side]


@pytest.mark.parametrize(
    "wh", [(500, 375), (64, 64), (150, 128), (131, 200), (50, 40), (65, 64), (257, 129)]
)
def test_adm_crop(make_image, wh, monkeypatch):
    image = make_image(*wh)
    expected = adm_by_the_book(image, 64)
    pixels = Transform(TransformConfig(size=64, crop="adm"), augment=False)(image, 0)
    assert (pixels.numpy().transpose(1, 2, 0) == expected).all()
    monkeypatch.setattr(transforms, "_WIDE", 0)  # the way of very long strips
    difference = np.asarray(adm_crop(image, 64)).astype(int) - expected
    assert np.abs(difference).max() <= 1


def test_random_crops_are_keyed(make_image):
    image = make_image(90, 70)
    train = Transform(TransformConfig(size=16, crop="random", min_share=0.5), augment=True)
    one = train(image, 5, epoch=1, seed=2)
    np.random.seed(0)
    torch.manual_seed(0)
    assert torch.equal(one, train(image, 5, epoch=1, seed=2))
    for key in ((6, 1, 2), (5, 2, 2), (5, 1, 3)):
        assert not torch.equal(one, train(image, *key))


def test_validation_takes_the_center_unpadded(make_image):
    image = make_image(90, 70)
    config = TransformConfig(size=16, crop="random", pad=4)
    val = Transform(config, augment=False)
    assert val.record()["crop"] == "center" and val.record()["pad"] == 0 and not val.flip
    assert torch.equal(val(image, 0), Transform(TransformConfig(size=16), augment=False)(image, 7))


def test_random_windows_reach_every_edge(make_image):
    image = Image.fromarray(np.arange(40, dtype=np.uint8)[None, :, None].repeat(8, 0).repeat(3, 2))
    train = Transform(TransformConfig(size=8, crop="random"), augment=True)
    lefts = {int(train(image, i)[0, 0, 0]) for i in range(500)}
    assert lefts == set(range(33))


def test_padding_reflects(make_image):
    image = make_image(8, 8)
    train = Transform(TransformConfig(size=8, pad=2), augment=True)
    padded = np.pad(np.asarray(image), ((2, 2), (2, 2), (0, 0)), mode="reflect")
    windows = {padded[y : y + 8, x : x + 8].tobytes(): (y, x) for y in range(5) for x in range(5)}
    seen = {windows[train(image, i).numpy().transpose(1, 2, 0).tobytes()] for i in range(400)}
    assert len(seen) == 25


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"size": 0}, "size=0"),
        ({"crop": "adm", "size": (8, 16)}, "cuts squares"),
        ({"crop": "adm", "filter": "box"}, "bicubic by definition"),
        ({"min_share": 0.5}, "needs crop=random"),
        ({"pad": 32}, "pad=32"),
    ],
)
def test_contradictions_are_config_errors(values, words):
    with pytest.raises(ConfigError, match=words) as caught:
        validate(TransformConfig, values)
    assert "\n" not in str(caught.value)
