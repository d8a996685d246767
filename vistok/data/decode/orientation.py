"""The orientation that a camera or an editor noted beside an image, and turning by it.

Read as `PIL.ImageOps.exif_transpose` does: from EXIF (a block of its own, or ImageMagick's text
chunk), and where that says nothing from XMP. `exif_transpose` itself also writes the EXIF block
anew, which fails for many that can be read.
"""

from __future__ import annotations

import math
import struct
from numbers import Real
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

_TAG = 0x0112
_PLACES = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")  # of `Image.info`
_FAULTS = (
    *(SyntaxError, ValueError, TypeError, KeyError, IndexError, OverflowError, OSError),
    *(struct.error, ZeroDivisionError),
)


def orientation(image: Image) -> int | None:
    """The orientation noted in a decoded file, as it stands; None if there is none to be read.

    Upright is 1; numbers outside 1..8 are invalid and count as upright.
    """
    if not any(place in image.info for place in _PLACES):
        return None
    try:
        value = image.getexif().get(_TAG)
        number = float(value) if isinstance(value, Real) else math.nan
    except _FAULTS:  # a damaged block
        return None
    return int(number) if number.is_integer() else None


def upright(image: Image, value: int | None) -> Image:
    """The image, turned and mirrored as an orientation says."""
    from PIL.Image import Transpose

    operation = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(value)
    return image if operation is None else image.transpose(operation)
