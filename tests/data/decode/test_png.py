"""PNG: metadata of any size, color keys of every depth; expected values from the specification."""

import struct
import zlib

import numpy as np
import pytest

from tests.support.pngs import chunk, png
from vistok.data import BadSample
from vistok.data.decode import images
from vistok.data.decode.png import SIGNATURE, without_metadata

BIG = b"workflow " * 500_000  # 4.5 MB
XMP = b'<x tiff:Orientation="6"/>'


def read(data: bytes) -> np.ndarray:
    return np.asarray(images.decode(data, "x.png"))


def itxt(key: bytes, text: bytes, packed: bool) -> bytes:
    body = zlib.compress(text) if packed else text
    return chunk(b"iTXt", key + b"\0" + bytes([packed, 0]) + b"\0\0" + body)


METADATA = {
    "tEXt": chunk(b"tEXt", b"workflow\0" + BIG),
    "zTXt": chunk(b"zTXt", b"workflow\0\0" + zlib.compress(BIG)),
    "iTXt": itxt(b"workflow", BIG, packed=False),
    "iTXt packed": itxt(b"workflow", BIG, packed=True),
    "iCCP": chunk(b"iCCP", b"profile\0\0" + zlib.compress(BIG)),
    "a way of packing nobody knows": chunk(b"zTXt", b"workflow\0\7rubbish"),
    "damaged": chunk(b"iCCP", b"profile\0\0rubbish"),
    "a wrong checksum": chunk(b"tEXt", b"workflow\0short")[:-1] + b"\0",
    "an EXIF block with a wrong checksum": chunk(b"eXIf", b"II*\0")[:-1] + b"\0",
    "an EXIF block that is none": chunk(b"eXIf", b"rubbish"),
    "too short": chunk(b"gAMA", b"\0") + chunk(b"pHYs", b"\0") + chunk(b"sRGB", b""),
    "bomb": chunk(b"zTXt", b"XML:com.adobe.xmp\0\0" + zlib.compress(XMP + bytes(2**25))),
    "many": chunk(b"tEXt", b"a\0" + BIG) * 16,  # more than Pillow keeps
}


@pytest.mark.parametrize("behind", [False, True], ids=["before the pixels", "behind them"])
@pytest.mark.parametrize("kind", METADATA)
def test_metadata_make_no_image_unusable(kind, behind):
    pixels = np.arange(2 * 5 * 3, dtype=np.uint8).reshape(2, 5, 3)
    place = {"behind" if behind else "before": METADATA[kind]}
    assert (read(png(pixels, 8, **place)) == pixels).all()


@pytest.mark.parametrize("behind", [False, True], ids=["before the pixels", "behind them"])
@pytest.mark.parametrize("packed", [False, True])
def test_an_orientation_is_read_from_large_metadata(packed, behind):
    pixels = np.arange(2 * 5 * 3, dtype=np.uint8).reshape(2, 5, 3)
    text = itxt(b"XML:com.adobe.xmp", XMP + BIG, packed)
    place = {"behind" if behind else "before": METADATA["iCCP"] + text}
    assert (read(png(pixels, 8, **place)) == np.rot90(pixels, -1)).all()


def test_what_is_damaged_or_plain_stays_as_it_is():
    plain = png(np.zeros((2, 2), np.uint8), 8)
    text = chunk(b"tEXt", b"a\0b")
    assert without_metadata(plain) is plain
    whole = png(np.zeros((2, 2), np.uint8), 8, before=text, behind=text) + b"trailing"
    assert without_metadata(whole) == plain + b"trailing"
    cut = whole[: whole.index(b"IDAT") + 6]
    assert without_metadata(cut) == plain[: plain.index(b"IDAT") + 6]
    with pytest.raises(BadSample, match="cannot be decoded"):
        images.decode(cut, "x.png")
    with pytest.raises(BadSample, match="cannot be decoded"):  # the file ends in its metadata
        images.decode(plain[:-12] + chunk(b"tEXt", b"a\0" + BIG)[:-8], "x.png")
    assert without_metadata(SIGNATURE) == SIGNATURE


@pytest.mark.parametrize(
    "depth, channels", [(1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (8, 3), (16, 3)]
)
def test_a_color_key_is_compared_as_it_is_stored(depth, channels):
    """Left: the key. Right: each neighbor of it, which for 16 bits shares its upper half."""
    key = {1: 1, 2: 2, 4: 9, 8: 18, 16: 0x1234}[depth]
    pixels = np.full((3, 8, channels), key, np.uint16)
    pixels[:, 4:] = key ^ 1
    pixels[0, 5, 0] = key  # of RGB one channel alone is no key
    data = png(pixels.squeeze(-1) if channels == 1 else pixels, depth, key=key)
    if depth == 16:
        opaque = pixels >> 8 if channels == 3 else (pixels + 128) // 257
    else:
        opaque = pixels * (255 // (2**depth - 1))
    clear = (pixels == key).all(-1, keepdims=True)
    assert (clear[:, :4]).all() and clear.sum() == 12 + (channels == 1)
    shown = np.broadcast_to(np.where(clear, 255, opaque), (3, 8, 3))
    assert (read(data) == shown).all()
    # A key of more bits than the samples: the lower ones count.
    if depth < 16:
        wide = data.replace(
            chunk(b"tRNS", struct.pack(">H", key) * channels),
            chunk(b"tRNS", struct.pack(">H", key | 0x4000) * channels),
        )
        assert wide != data and (read(wide) == shown).all()


def test_a_color_key_of_a_turned_image_with_large_metadata():
    pixels = np.full((2, 5, 3), 0x1234, np.uint16)
    pixels[0] = 0x1235
    before = METADATA["zTXt"] + itxt(b"XML:com.adobe.xmp", XMP, packed=True)
    turned = read(png(pixels, 16, key=0x1234, before=before))
    assert turned.shape == (5, 2, 3)
    assert (turned[:, 0] == 255).all() and (turned[:, 1] == 0x12).all()
