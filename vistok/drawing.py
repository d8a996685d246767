"""Images drawn together: lines of text, rows and columns, and images inside a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

Color = tuple[int, int, int]
INK, PAPER = (0, 0, 0), (255, 255, 255)


def text(
    words: str,
    width: int,
    height: int,
    *,
    size: float = 10,
    ink: Color = INK,
    paper: Color = PAPER,
    centered: bool = False,
) -> Image:
    """A line of text in the middle of its height; too long a one ends in two dots.

    Args:
        size: of Pillow's own font, in pixels.
        centered: in the middle of its width too; otherwise at its left end.
    """
    from PIL import Image, ImageDraw, ImageFont

    image, font = Image.new("RGB", (width, height), paper), ImageFont.load_default(size)
    shown = words
    while shown and font.getlength(shown) > width - 4:
        words = words[:-1]
        shown = f"{words}.." if words else ""
    place, anchor = ((width / 2, height / 2), "mm") if centered else ((2, height / 2), "lm")
    ImageDraw.Draw(image).text(place, shown, ink, font=font, anchor=anchor)
    return image


def beside(images: Sequence[Image], gap: int, paper: Color = PAPER) -> Image:
    """Images from left to right."""
    return _placed(images, [(image.width + gap, 0) for image in images], gap, paper)


def stacked(images: Sequence[Image], gap: int, paper: Color = PAPER) -> Image:
    """Images from top to bottom."""
    return _placed(images, [(0, image.height + gap) for image in images], gap, paper)


def framed(image: Image, margin: int, paper: Color = PAPER) -> Image:
    """An image with a margin on all sides."""
    from PIL import ImageOps

    return ImageOps.expand(image, margin, paper)


def data_uri(image: Image, lossless: bool = True) -> str:
    """An image as an address that a page can hold: PNG, or WebP of quality 90."""
    file = io.BytesIO()
    if lossless:
        image.save(file, "PNG", optimize=True)
    else:
        image.save(file, "WEBP", quality=90)
    kind = "png" if lossless else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def moving_uri(frames: Sequence[Image], fps: float, quality: int = 85) -> str:
    """Frames as one image that plays without end: an address of animated WebP."""
    file = io.BytesIO()
    frames[0].save(
        file,
        "WEBP",
        save_all=True,
        append_images=list(frames[1:]),
        duration=max(20, round(1000 / fps)),  # browsers slow down what is faster
        loop=0,
        quality=quality,
        method=4,
        kmin=0,  # no frame repeats an older one in place of its own small changes
        kmax=1,
    )
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def _placed(
    images: Sequence[Image], steps: Sequence[tuple[int, int]], gap: int, paper: Color
) -> Image:
    """Images on paper, each a step behind the one before it."""
    from PIL import Image

    x, y, places = 0, 0, []
    for dx, dy in steps:
        places.append((x, y))
        x, y = x + dx, y + dy
    wide, high = max(image.width for image in images), max(image.height for image in images)
    sheet = Image.new("RGB", (x - gap if x else wide, y - gap if y else high), paper)
    for image, place in zip(images, places, strict=True):
        sheet.paste(image, place)
    return sheet
