"""Images of public bug reports: which are read, to the pixel, and which are refused by name."""

import numpy as np
import pytest

from vistok.data import BadSample
from vistok.data.decode import images

# Mean difference from the picture that all of these show; 0 = stored without loss.
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
def picture(reported):
    """[96, 128, 3]: the picture, in the simplest of its files."""
    found = pixels(reported("picture_kinds") / "rgb.bmp")
    assert found.shape == (96, 128, 3)
    corners = [found[y, x].tolist() for y, x in ((0, 0), (0, -1), (-1, 0))]
    assert corners == [[250, 10, 10], [254, 0, 127], [0, 190, 95]]
    return found


def test_kinds_are_read_or_refused_by_name(reported, picture):
    folder = reported("picture_kinds")
    for name, difference in KINDS.items():
        assert np.abs(pixels(folder / name) - picture).mean() <= difference, name
    one = pixels(folder / "one.bmp")
    assert one.shape == picture.shape and set(np.unique(one)) == {0, 255}
    for name, words in REFUSED.items():
        with pytest.raises(BadSample, match=words):
            images.read(folder / name)
    known = {*KINDS, *REFUSED, "one.bmp", "README"}
    assert {path.name for path in folder.iterdir()} == known


def test_large_metadata_hide_no_picture(reported, picture):
    files = sorted(reported("png_big_metadata").glob("*.png"))
    assert len(files) >= 2
    for path in files:
        assert (pixels(path) == picture).all(), path.name


@pytest.mark.parametrize(
    "name, right", [("rgb8", [255, 0, 0]), ("rgb16", [255, 0, 0]), ("grey8", 128), ("grey1", 255)]
)
def test_color_keys_are_white(reported, name, right):
    found = pixels(reported("png_colour_key") / f"{name}.png")
    assert found.shape == (32, 32, 3) and (found[:, :16] == 255).all()
    assert (found[:, 16:] == right).all()
