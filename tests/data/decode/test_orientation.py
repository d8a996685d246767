"""Orientation: wherever it is noted, as `ImageOps.exif_transpose` reads it."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.support.pngs import chunk, png
from vistok.data.decode import images

# Types of EXIF values by number, with a value of 6 in them, little-endian.
TYPES = {
    1: b"\x06",
    2: b"6\0",
    3: struct.pack("<H", 6),
    4: struct.pack("<I", 6),
    5: struct.pack("<II", 12, 2),
    6: b"\x06",
    7: b"\x06",
    8: struct.pack("<h", 6),
    9: struct.pack("<i", 6),
    10: struct.pack("<ii", 6, 1),
    11: struct.pack("<f", 6),
    12: struct.pack("<d", 6),
    13: struct.pack("<I", 6),
    99: struct.pack("<H", 6),
}
XMP = {
    "attribute": b'<rdf:Description tiff:Orientation="6"/>',
    "element": b"<tiff:Orientation>8</tiff:Orientation>",
    "none": b"<rdf:Description/>",
    "invalid": b'<rdf:Description tiff:Orientation="9"/>',
}


def block(*entries: tuple[int, int, bytes, int], order: str = "<") -> bytes:
    """A TIFF block of (tag, type, bytes of the value, count)."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    body, tail = struct.pack(order + "H", len(entries)), b""
    behind = 8 + 2 + 12 * len(entries) + 4
    for tag, kind, value, count in entries:
        body += struct.pack(order + "HHI", tag, kind, count)
        if len(value) > 4:
            body += struct.pack(order + "I", behind + len(tail))
            tail += value
        else:
            body += value.ljust(4, b"\0")
    return head + body + bytes(4) + tail


@pytest.fixture
def jpeg(make_image):
    """jpeg(exif, xmp) -> bytes."""

    def make(exif: bytes = b"", xmp: bytes | None = None) -> bytes:
        options = {"exif": b"Exif\0\0" + exif} if exif else {}
        file = io.BytesIO()
        make_image(10, 6).save(file, "jpeg", **options, **({"xmp": xmp} if xmp else {}))
        return file.getvalue()

    return make


def same_as_pil(data: bytes) -> bool:
    """True if the image is turned; it must be what PIL makes of it."""
    theirs = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    ours = images.decode(data, "x")
    assert (np.asarray(ours) == np.asarray(theirs)).all()
    return ours.size == (6, 10)


@pytest.mark.parametrize("kind", TYPES)
def test_types_of_the_tag(jpeg, kind):
    turned = same_as_pil(jpeg(block((0x0112, kind, TYPES[kind], 1 if kind != 2 else 2))))
    assert turned == (kind in (3, 4, 5, 6, 8, 9, 10, 11, 12, 13))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_order_of_bytes_repeats_and_damage(jpeg):
    six, one = struct.pack(">I", 6), struct.pack(">I", 1)
    assert same_as_pil(jpeg(block((0x0112, 4, six, 1), order=">")))
    two = block((0x0112, 4, one, 1), (0x0112, 4, six, 1), order=">")
    same_as_pil(jpeg(two))
    assert not same_as_pil(jpeg(two[:30]))  # cut off before it
    assert not same_as_pil(jpeg(block((0x0112, 4, b"\6\0\0\0", 0))))
    assert images.decode(jpeg(b"rubbish, and no TIFF"), "x").size == (10, 6)


@pytest.mark.parametrize("name", XMP)
def test_xmp_counts_where_exif_says_nothing(jpeg, name):
    valid = name in ("attribute", "element")
    assert same_as_pil(jpeg(xmp=XMP[name])) == valid
    other = block((0x0110, 2, b"cam\0", 4))
    assert same_as_pil(jpeg(other, XMP[name])) == valid
    upright = block((0x0112, 3, struct.pack("<H", 1), 1))
    assert not same_as_pil(jpeg(upright, XMP[name]))


def test_imagemagick_writes_exif_as_text():
    exif = b"Exif\0\0" + block((0x0112, 3, struct.pack("<H", 6), 1))
    text = b"\nexif\n%8d\n%s\n" % (len(exif), exif.hex().encode())
    pixels = np.arange(180, dtype=np.uint8).reshape(6, 10, 3)
    for place in ("before", "behind"):
        note = {place: chunk(b"tEXt", b"Raw profile type exif\0" + text)}
        assert same_as_pil(png(pixels, 8, **note))
    broken = chunk(b"tEXt", b"Raw profile type exif\0\nexif\n   9\nno hex\n")
    assert images.decode(png(pixels, 8, before=broken), "x").size == (10, 6)


def test_the_header_tells_what_is_noted(jpeg):
    noted = lambda data: images.inspect(data, "x")[1].orientation
    assert noted(jpeg()) is None
    assert noted(jpeg(block((0x0112, 3, struct.pack("<H", 9), 1)))) == 9
    assert noted(jpeg(xmp=XMP["attribute"])) == 6
    assert noted(jpeg(block((0x0112, 7, b"\6", 1)))) is None


def test_reported_files_are_turned_as_pil_does(shared):
    folder = shared / "reported" / "orientation_elsewhere"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    files = sorted(path for path in folder.iterdir() if path.name != "README")
    assert len(files) >= 10
    for path in files:
        theirs = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        ours = images.read(path)
        assert (np.asarray(ours) == np.asarray(theirs)).all(), path.name
        assert ours.size == ((128, 96) if path.name == "byte.jpg" else (96, 128)), path.name
