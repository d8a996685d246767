"""Geometry of TokBench: an image on a black square, back again, and boxes cut out of it.

Facts of the published scripts (wjf5203/TokBench, `resize_rec.py` and its changed copy of docTR),
kept with their rounding:

- The image is scaled to fit the square with PIL's Lanczos filter, both sides rounded *up*, and
  pasted in the middle, an odd pixel of black to the right and below. The rounding is that of
  floating point: 364 x 273 becomes 256 x 193, not 192. On squares whose side is no power of two
  the longer side may come out a pixel too large, which is cut.
- The decoded square is cut back to the image and scaled to the original sides, Lanczos again.
- The result is written under the original's name: a .jpg goes through JPEG at PIL's default
  quality (75, chroma at half the resolution) before anything reads it.
- Boxes are (x0, y0, x1, y1) in pixels of the original, truncated to whole numbers, the last column
  and row left out.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from vistok.core.errors import InputError

Stored = Literal["published", "exact"]


@dataclass(frozen=True)
class Place:
    """Place of an image on its square: what it takes to undo `on_square`."""

    sides: tuple[int, int]  # (width, height) of the original
    scaled: tuple[int, int]  # (width, height) on the square
    corner: tuple[int, int]  # (x, y) of its upper left corner there, -1 at the least


def place_of(sides: tuple[int, int], side: int) -> Place:
    """The place of an image of `sides` (width, height) on a square of `side` pixels."""
    # In this order: 273 * 256 / 364 is 192, 273 * (256 / 364) a little more.
    ratio = min(side / sides[0], side / sides[1])
    scaled = (math.ceil(sides[0] * ratio), math.ceil(sides[1] * ratio))
    return Place(sides, scaled, ((side - scaled[0]) // 2, (side - scaled[1]) // 2))


def on_square(image: Image.Image, side: int) -> tuple[Image.Image, Place]:
    """An RGB image on a black square of `side` pixels, and where it lies there."""
    place = place_of(image.size, side)
    square = Image.new("RGB", (side, side), (0, 0, 0))
    square.paste(image.resize(place.scaled, Image.Resampling.LANCZOS), place.corner)
    return square, place


def off_square(square: Image.Image, place: Place) -> Image.Image:
    """The image that lies on a square, at its original sides."""
    (x, y), (width, height) = place.corner, place.scaled
    cut = square.crop((x, y, x + width, y + height))
    return cut.resize(place.sides, Image.Resampling.LANCZOS)


def as_stored(image: Image.Image, name: str, stored: Stored) -> Image.Image:
    """The image as it comes back from a file of that name.

    Args:
        stored: "published" writes the format that the name ends in, with PIL's defaults (lossy for
            .jpg, lossless for .png); "exact" leaves the image as it is.
    Raises InputError for a name whose ending stands for no format.
    """
    if stored == "exact":
        return image
    ending = Path(name).suffix.lower()
    kind = Image.registered_extensions().get(ending)
    if kind is None:
        raise InputError(
            f"tokbench: {name}: no image format ends in '{ending}'; tokbench.stored=exact writes "
            "no file"
        )
    file = io.BytesIO()
    image.save(file, kind)
    with Image.open(file) as found:
        return found.convert("RGB")


def crop(pixels: np.ndarray, box: Sequence[float]) -> np.ndarray:
    """[H, W, 3] and a box (x0, y0, x1, y1) in pixels -> [h, w, 3].

    A box that leaves the image is cut at its right and lower edge. Raises InputError for one that
    holds no pixel.
    """
    x0, y0, x1, y1 = (int(np.float32(edge)) for edge in box)
    found = pixels[y0:y1, x0:x1] if min(x0, y0) >= 0 else pixels[:0]
    if 0 in found.shape:
        height, width = pixels.shape[:2]
        raise InputError(
            f"tokbench: box {tuple(box)} holds no pixel of an image of {width}x{height}; its "
            "annotation is of another image"
        )
    return found
