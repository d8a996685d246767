"""Images of public bug reports: which are read, to the pixel, and which are refused by name."""

import json

import numpy as np
import pytest
from PIL import Image

from vistok.data import BadSample
from vistok.data.decode import images

# Mean difference from the image that all of these show; 0 = stored without loss.
KINDS = {
    **{"rgb.bmp": 0, "apng.png": 0, "no_iend.png": 0, "trailing.png": 0, "lossless_alpha.webp": 0},
    **{"progressive.jpg": 2, "trailing.jpg": 2, "cmyk_icc.jpg": 2, "anim.webp": 3, "p.bmp": 20},
}
REFUSED = {
    "a.tif": r"a\.tif: not an image: it starts with b'II\*",
    "b.avif": r"b\.avif: not an image: it starts with .*ftyp",
    "no_eoi.jpg": r"no_eoi\.jpg: cannot be decoded \(image file is truncated",
}


@pytest.fixture
def reported(shared):
    def folder(name):
        found = shared / "reported" / name
        if not found.is_dir():
            pytest.skip(f"no {found}")
        return found

    return folder


def pixels(path) -> np.ndarray:
    return np.asarray(images.read(path)).astype(int)


@pytest.fixture
def image(reported):
    """[96, 128, 3]: the image, in the simplest of its files."""
    found = pixels(reported("picture_kinds") / "rgb.bmp")
    assert found.shape == (96, 128, 3)
    corners = [found[y, x].tolist() for y, x in ((0, 0), (0, -1), (-1, 0))]
    assert corners == [[250, 10, 10], [254, 0, 127], [0, 190, 95]]
    return found


def test_kinds_are_read_or_refused_by_name(reported, image):
    folder = reported("picture_kinds")
    for name, difference in KINDS.items():
        assert np.abs(pixels(folder / name) - image).mean() <= difference, name
    one = pixels(folder / "one.bmp")
    assert one.shape == image.shape and set(np.unique(one)) == {0, 255}
    for name, words in REFUSED.items():
        with pytest.raises(BadSample, match=words):
            images.read(folder / name)
    known = {*KINDS, *REFUSED, "one.bmp", "README"}
    assert {path.name for path in folder.iterdir()} == known


def test_large_metadata_hide_no_image(reported, image):
    files = sorted(reported("png_big_metadata").glob("*.png"))
    assert len(files) >= 2
    for path in files:
        assert (pixels(path) == image).all(), path.name


@pytest.mark.parametrize(
    "name, right", [("rgb8", [255, 0, 0]), ("rgb16", [255, 0, 0]), ("grey8", 128), ("grey1", 255)]
)
def test_color_keys_are_white(reported, name, right):
    found = pixels(reported("png_colour_key") / f"{name}.png")
    assert found.shape == (32, 32, 3) and (found[:, :16] == 255).all()
    assert (found[:, 16:] == right).all()


REASONS = {
    "truncated.jpg": "image file is truncated",
    "zero_byte.jpg": "the file is empty",
    "text_named.jpg": "not an image: it starts with",
    "bomb_header.png": "declares 60000x60000 pixels, over the limit of 100 Mpx",
    "bomb_real.png": "declares 20000x20000 pixels, over the limit of 100 Mpx",
}
SIZES = {  # width, height; of those that PIL alone shows rightly
    "bitflips.jpg": (256, 256),
    "png_named.jpg": (128, 128),
    "cmyk.jpg": (256, 256),
    "grey.jpg": (256, 256),
    "one_bit.png": (256, 256),
    "one_by_one.png": (1, 1),
    "strip_10000x20.jpg": (10000, 20),
    "animated.gif": None,
}
CLEAR = ("grey_alpha.png", "rgba.png", "palette_transparency.png")


def test_every_image_of_the_manifest_has_the_right_values(shared):
    folder = shared / "broken"
    for name, words in REASONS.items():
        with pytest.raises(BadSample, match=words):
            images.read(folder / name)
    for name, size in SIZES.items():
        theirs = Image.open(folder / name)
        assert size in (None, theirs.size)
        assert (pixels(folder / name) == np.asarray(theirs.convert("RGB"))).all(), name
    for name in CLEAR:  # on white
        rgba = np.asarray(Image.open(folder / name).convert("RGBA")).astype(float)
        alpha = rgba[..., 3:] / 255
        assert 0 <= alpha.min() < 1
        expected = rgba[..., :3] * alpha + 255 * (1 - alpha)
        assert np.abs(pixels(folder / name) - expected).max() <= 1, name
    deep = np.asarray(Image.open(folder / "grey_16bit.png")).astype(int)
    assert (deep % 257 == 0).all() and deep.std() > 1000
    assert (pixels(folder / "grey_16bit.png") == (deep // 257)[..., None]).all()
    turned = np.asarray(Image.open(folder / "exif_rotated.jpg")).astype(int)
    assert turned.shape == (200, 320, 3)
    assert (pixels(folder / "exif_rotated.jpg") == np.rot90(turned, -1)).all()
    entries = json.loads((folder / "manifest.json").read_text("utf-8"))["files"]
    tested = {*REASONS, *SIZES, *CLEAR, "grey_16bit.png", "exif_rotated.jpg"}
    assert {e["file"] for e in entries if e["kind"] == "image"} == tested
