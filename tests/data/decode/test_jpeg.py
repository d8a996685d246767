"""JPEG: metadata of any size and damage; what decides colors and orientation stays."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from vistok.data import BadSample
from vistok.data.decode import images
from vistok.data.decode.jpeg import without_metadata


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def encoded(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, "jpeg", **options)
    return file.getvalue()


def read(data: bytes) -> np.ndarray:
    return np.asarray(images.decode(data, "x.jpg"))


METADATA = {
    "a density that is cut off": segment(0xE0, b"JFIF\0"),
    "a profile without its numbers": segment(0xE2, b"ICC_PROFILE\0"),
    "a large profile": segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(60000)) * 80,
    "an index of pictures": segment(0xE2, b"MPF\0rubbish"),
    "an editor's notes": segment(0xED, b"Photoshop 3.0\x008BIM\4\4"),
    "colors that are cut off": segment(0xEE, b"Adobe"),
    "a comment": segment(0xFE, b"x" * 60000) * 80,
    "an EXIF block that is none": segment(0xE1, b"Exif\0\0rubbish"),
    "filling": b"\xff" * 9,
}


@pytest.mark.parametrize("kind", METADATA)
def test_metadata_make_no_image_unusable(make_image, kind):
    data = encoded(make_image())
    for at in (2, 20):  # before and behind the first segment
        assert (read(data[:at] + METADATA[kind] + data[at:]) == read(data)).all()


def test_colors_and_orientation_stay(make_image):
    cmyk = encoded(make_image().convert("CMYK"))
    assert b"Adobe" in cmyk and without_metadata(cmyk) == cmyk
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(make_image(), exif=exif, comment=b"a note", icc_profile=bytes(100))
    assert without_metadata(turned) == encoded(make_image(), exif=exif)
    assert read(turned).shape == (40, 30, 3)
    plain = encoded(make_image())
    assert without_metadata(plain) is plain


def test_what_is_cut_off_stays_an_error(make_image):
    data = encoded(make_image(), comment=b"x" * 1000)
    for end in (4, 30, 500, 1200, len(data) - 40):
        with pytest.raises(BadSample, match="cannot be decoded"):
            images.decode(data[:end], "x.jpg")
