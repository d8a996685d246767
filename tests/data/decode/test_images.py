"""Every image of the manifest, every mode, every orientation."""

import csv
import io
import json
import struct
import warnings

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps, WebPImagePlugin

from vistok.data import BadSample
from vistok.data.decode import images
from vistok.data.decode.orientation import orientation, upright
from vistok.data.decode.transforms import Transform, TransformConfig


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def array(data: bytes) -> np.ndarray:
    return np.asarray(images.decode(data, "made-up"))


def test_manifest_images_do_what_they_should(shared):
    entries = json.loads((shared / "broken" / "manifest.json").read_text())["files"]
    entries = [entry for entry in entries if entry["kind"] == "image"]
    assert len(entries) >= 15
    transform = Transform(TransformConfig(size=64), augment=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for entry in entries:
            path = shared / "broken" / entry["file"]
            if entry["expect"] == "error":
                with pytest.raises(BadSample) as caught:
                    images.read(path)
                text = str(caught.value)
                assert entry["file"] in text and "\n" not in text and len(text) < 400
            else:
                assert entry["expect"] == "decodes", entry
                image = images.read(path)
                assert image.mode == "RGB", entry["file"]
                assert transform(image, 0).shape == (3, 64, 64), entry["file"]


def test_manifest_images_have_the_right_pixels(shared):
    read = lambda name: np.asarray(images.read(shared / "broken" / name)).astype(int)
    gray = read("grey.jpg")
    assert (gray[..., 0] == gray[..., 1]).all() and (gray[..., 0] == gray[..., 2]).all()
    deep = read("grey_16bit.png")
    raw = np.asarray(Image.open(shared / "broken" / "grey_16bit.png")).astype(int)
    assert (deep[..., 0] * 257 == raw).all() and deep.std() > 10
    assert set(np.unique(read("one_bit.png"))) == {0, 255}
    assert read("exif_rotated.jpg").shape == (320, 200, 3)  # upright 200 wide, 320 high
    assert read("png_named.jpg").shape == (128, 128, 3)
    assert read("palette_transparency.png")[..., 0].std() > 10
    gif = Image.open(shared / "broken" / "animated.gif")
    assert (read("animated.gif") == np.asarray(gif.convert("RGB")).astype(int)).all()


def test_orientation_of_real_files_is_that_of_pil(shared):
    rows = list(csv.DictReader((shared / "imagenet_raw.csv").open()))
    assert rows
    files = sorted((shared / "imagenet_raw").rglob("*.JPEG"))
    seen = set()
    for path in files:
        theirs = Image.open(path)
        upright = ImageOps.exif_transpose(theirs).convert("RGB")
        ours, header = images.inspect(path.read_bytes(), path.name)
        assert (np.asarray(ours) == np.asarray(upright)).all(), path.name
        seen.add(header.orientation)
    assert seen == {None, 0, 1, 6}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("value", [0, 1, 3, 6, 8, 9, 65535])
def test_orientation_tag(make_image, order, value):
    def noted(exif):
        image = make_image()
        image.info["exif"] = exif
        return orientation(image)

    mark = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, value, 0)
    block = mark + struct.pack(order + "IH", 8, 1) + entry + b"\0\0\0\0"
    assert noted(b"Exif\0\0" + block) == noted(block) == value
    turned = upright(make_image(), value)
    assert turned.size == ((30, 40) if value in (6, 8) else (40, 30))
    with warnings.catch_warnings():  # of PIL
        warnings.simplefilter("ignore")
        assert noted(block[:15]) is None  # cut off
    assert noted(b"rubbish") is None


@pytest.mark.parametrize("value", range(1, 9))
def test_every_orientation_is_applied(make_image, value):
    exif = Image.Exif()
    exif[0x0112] = value
    data = encode(make_image(), "PNG", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert (array(data) == np.asarray(expected)).all()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "WEBP", "JPEG"])
def test_kinds_are_told_by_content(make_image, kind):
    assert array(encode(make_image(), kind)).shape == (30, 40, 3)


def test_transparency_is_composited_on_white():
    clear = Image.new("RGBA", (2, 1), (10, 20, 30, 0))
    clear.putpixel((1, 0), (10, 20, 30, 255))
    assert array(encode(clear, "PNG")).tolist() == [[[255, 255, 255], [10, 20, 30]]]
    keyed = Image.new("L", (2, 1), 7)
    keyed.putpixel((1, 0), 9)
    assert array(encode(keyed, "PNG", transparency=7))[0, :, 0].tolist() == [255, 9]


def test_size_is_refused_before_decoding(make_image):
    for kind in ("PNG", "BMP", "GIF", "WEBP", "JPEG"):
        for lossless in (False, True):
            options = {"lossless": True} if lossless and kind == "WEBP" else {}
            with pytest.raises(BadSample, match="40x30 pixels, over the limit"):
                images.decode(encode(make_image(), kind, **options), "x", limit=1199)
            images.decode(encode(make_image(), kind, **options), "x", limit=1200)


@pytest.mark.parametrize("form", ["VP8 ", "VP8L", "VP8X"])
def test_webp_is_refused_before_its_decoder_allocates(make_image, monkeypatch, form):
    options = {"VP8 ": {}, "VP8L": {"lossless": True}, "VP8X": {"exif": b"Exif\0\0II*\0"}}[form]
    data = encode(make_image(301, 203), "WEBP", **options)
    assert data[12:16] == form.encode()
    monkeypatch.setattr(WebPImagePlugin, "WebPImageFile", None)  # must not be reached
    with pytest.raises(BadSample, match="declares 301x203 pixels"):
        images.decode(data, "x", limit=1000)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "JPEG", "BMP"])
def test_cut_off_files_are_errors_whatever_pil_was_told(make_image, kind, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = encode(make_image(120, 100), kind)
    for share in (0.02, 0.5, 0.9):
        with pytest.raises(BadSample):
            images.decode(data[: int(len(data) * share)], "x")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True  # left as it was


def test_pil_limit_is_left_alone_and_silent(make_image, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert array(encode(make_image(), "PNG")).shape == (30, 40, 3)
    assert Image.MAX_IMAGE_PIXELS == 500


def test_missing_file_is_a_bad_sample(tmp_path):
    with pytest.raises(BadSample, match=r"gone\.png: cannot be read \(No such file"):
        images.read(tmp_path / "gone.png")
