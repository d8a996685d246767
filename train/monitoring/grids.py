"""Grids of images with names: of each row on the left, and of each set of samples above."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_WIDE = 1024  # pixels of a grid that small images are enlarged to, about
_TEXT, _MARGIN = 15, 8  # pixels: height of the letters, space around them
_GAP = 16  # between two sets
_INK, _PAPER = (30, 33, 38), (251, 250, 247)


@dataclass(frozen=True)
class Grid:
    """Images in rows of the same samples."""

    image: Tensor  # [3, H, W] in 0..1
    rows: tuple[str, ...]  # name of each row, from the top; all rows are of one height


def labeled(sets: Mapping[str, Grid]) -> Tensor:
    """[3, H, W] in 0..1: grids of the same rows side by side, each below its name.

    Small images are enlarged by a whole factor without smoothing, so that pixels stay visible.
    """
    from PIL import Image, ImageDraw, ImageFont

    grids = list(sets.values())
    rows, high = grids[0].rows, grids[0].image.shape[-2]
    scale = max(1, round(_WIDE / sum(grid.image.shape[-1] for grid in grids)))
    font = ImageFont.load_default(_TEXT)
    left = max(round(font.getlength(name)) for name in rows) + 2 * _MARGIN
    top = _TEXT + 2 * _MARGIN
    wide = sum(grid.image.shape[-1] * scale + _GAP for grid in grids) - _GAP
    page = Image.new("RGB", (left + wide, top + high * scale), _PAPER)
    draw = ImageDraw.Draw(page)
    for place, name in enumerate(rows):
        middle = top + (place + 0.5) * high * scale / len(rows)
        draw.text((_MARGIN, middle), name, _INK, font, anchor="lm")
    x = left
    for name, grid in sets.items():
        draw.text((x, top / 2), name, _INK, font, anchor="lm")
        big = grid.image.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
        bytes_ = big.clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0)
        page.paste(Image.fromarray(bytes_.contiguous().numpy()), (x, top))
        x += big.shape[-1] + _GAP
    pixels = torch.frombuffer(bytearray(page.tobytes()), dtype=torch.uint8)
    return pixels.view(page.height, page.width, 3).permute(2, 0, 1) / 255
