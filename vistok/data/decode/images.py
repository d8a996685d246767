"""Bytes of any common image file -> upright 8-bit RGB, or `BadSample` with the reason.

What is decided here, once, for training and evaluation alike:
- The kind of file is read from its content, never from its name: JPEG, PNG, WebP, BMP, GIF.
- More than 100 Mpx declared in the header, or 1 GiB of file, is refused before anything is decoded.
- A file that is cut off is an error; no image is ever completed with gray.
- Metadata never make an image unusable, however large or damaged they are (`jpeg`, `png`).
- The orientation of EXIF, or else of XMP, is applied (`orientation`); values outside 1..8 count as
  upright.
- Transparency (LA, RGBA, palettes, color keys) is composited on white. 16-bit gray is divided by
  257. CMYK, gray, palette and 1-bit images become RGB. Of an animation: the first frame.
Damage that decodes without an error cannot be seen; only a checksum of the file would tell.
"""

from __future__ import annotations

import io
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vistok.core.regular_files import open_regular
from vistok.data.base import BadSample
from vistok.data.decode import jpeg, png
from vistok.data.decode.orientation import orientation, upright

if TYPE_CHECKING:
    from PIL.Image import Image

PIXEL_LIMIT = 100_000_000
BYTE_LIMIT = 2**30


def read(path: str | os.PathLike[str], name: str | None = None) -> Image:
    """Decode a file; `name` (default: the path) is what errors call it."""
    name = os.fspath(path) if name is None else name
    return decode(content(path, name), name)


def content(path: str | os.PathLike[str], name: str) -> bytes:
    """The bytes of a file; BadSample if it cannot be read, or is a pipe, a device or too large."""
    try:
        with open_regular(path, "rb") as file:
            data = file.read(BYTE_LIMIT + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        reason = getattr(error, "strerror", None) or error
        raise BadSample(name, f"cannot be read ({reason})") from None
    if len(data) > BYTE_LIMIT:
        raise BadSample(name, f"is larger than {BYTE_LIMIT} bytes; expected an image")
    return data


@dataclass(frozen=True)
class Header:
    """Facts about an image file that decoding does away with."""

    format: str  # JPEG, PNG, WEBP, BMP, GIF: by content
    mode: str  # PIL's: RGB, L, P, CMYK, I;16, ...
    size: tuple[int, int]  # width, height as stored
    orientation: int | None  # as noted; values outside 1..8 are invalid


def decode(data: bytes, name: str, limit: int = PIXEL_LIMIT) -> Image:
    """An upright PIL image of mode RGB; BadSample if the bytes are no whole image."""
    return inspect(data, name, limit)[0]


def inspect(data: bytes, name: str, limit: int = PIXEL_LIMIT) -> tuple[Image, Header]:
    """The image of `decode`, and the header of its file."""
    if not data:
        raise BadSample(name, "the file is empty (0 bytes)")
    try:
        image = _open(data, name, limit)
        _load(image)
        noted = orientation(image)
        header = Header(image.format, image.mode, image.size, noted)
        return upright(_rgb(image, data, name), noted), header
    except BadSample:
        raise
    except Exception as error:  # decoders fail on hostile bytes in too many ways to list
        raise BadSample(name, f"cannot be decoded ({error or type(error).__name__})") from None


def opened(image: Image, name: str) -> Image:
    """An image that PIL has opened -> upright RGB on white, as `decode` gives a file's.

    BadSample for one whose file turns out to be damaged, and for modes that are no image of 8 bits.
    """
    try:
        _load(image)
        noted = orientation(image)
        return upright(_rgb(image, b"", name), noted)
    except BadSample:
        raise
    except Exception as error:  # as in `inspect`
        raise BadSample(name, f"cannot be decoded ({error or type(error).__name__})") from None


def to_tensor(image: Image) -> Tensor:
    """PIL RGB -> [3, H, W] uint8, a copy of its own.

    PIL hands out each line plane by plane; whole lines are then moved, which is faster than to
    take single bytes apart.
    """
    lines = np.frombuffer(image.tobytes("raw", "RGB;L"), np.uint8)
    return torch.from_numpy(lines.reshape(image.height, 3, image.width).transpose(1, 0, 2).copy())


def _open(data: bytes, name: str, limit: int) -> Image:
    """The image's header. `Image.open` is avoided: it warns by a global limit, and would try
    decoders (EPS, for one) that start other programs."""
    from PIL import BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

    file = io.BytesIO(data)
    if data.startswith(jpeg.SIGNATURE):
        image = JpegImagePlugin.JpegImageFile(io.BytesIO(jpeg.without_metadata(data)))
    elif data.startswith(png.SIGNATURE):
        image = PngImagePlugin.PngImageFile(io.BytesIO(png.without_metadata(data)))
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        _check_size(_webp_size(data), name, limit)  # its decoder allocates on opening
        image = WebPImagePlugin.WebPImageFile(file)
    elif data[:2] == b"BM":
        image = BmpImagePlugin.BmpImageFile(file)
    elif data[:6] in (b"GIF87a", b"GIF89a"):
        image = GifImagePlugin.GifImageFile(file)
    else:
        raise BadSample(
            name, f"not an image: it starts with {data[:8]!r}; expected JPEG, PNG, WebP, BMP, GIF"
        )
    _check_size(image.size, name, limit)
    return image


def _check_size(size: tuple[int, int], name: str, limit: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise BadSample(name, f"declares {width}x{height} pixels; expected sides of 1 or more")
    if width * height > limit:
        raise BadSample(
            name, f"declares {width}x{height} pixels, over the limit of {limit / 1e6:g} Mpx"
        )


def _webp_size(data: bytes) -> tuple[int, int]:
    chunk, body = data[12:16], data[20:30].ljust(10, b"\0")
    if chunk == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if chunk == b"VP8L":
        packed = int.from_bytes(body[1:5], "little")
        return 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", body, 6)  # VP8: after a frame tag and a start code
    return width & 0x3FFF, height & 0x3FFF


def _load(image: Image) -> None:
    """Decode all pixels, even where another library told PIL to complete cut-off files."""
    from PIL import ImageFile

    lenient = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        image.load()
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def _rgb(image: Image, data: bytes, name: str) -> Image:
    from PIL import Image

    clear = png.transparent(image, data) if image.format == "PNG" and data else None
    if clear is not None:
        del image.info["transparency"]
        pixels = np.array(_rgb(image, data, name))
        pixels[clear] = 255
        return Image.fromarray(pixels)
    if image.mode == "I" or image.mode.startswith("I;16"):
        gray = np.asarray(image).astype(np.int32).clip(0, 65535)
        return Image.fromarray(((gray + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    if image.mode in ("1", "L", "P", "CMYK", "YCbCr"):
        return image.convert("RGB")
    if image.mode != "RGB":
        raise BadSample(name, f"has pixels of mode {image.mode}; expected gray, RGB or CMYK")
    return image
