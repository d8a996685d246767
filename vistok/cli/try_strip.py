"""The strip of `vistok try` as one image: reconstructions by length, other codecs below them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

from vistok.cli.try_measure import CODECS, Coded, Comparison, Step
from vistok.core.text import printable
from vistok.drawing import beside, framed, stacked, text

_CELL, _GAP, _MARGIN = 240, 16, 36  # pixels: of an image's width, between images, around all
_INK, _SOFT, _PALE, _PAPER = (24, 28, 36), (104, 112, 124), (226, 229, 234), (255, 255, 255)
_FIELD = (247, 248, 250)
_MARK = (176, 58, 46)  # of what no file can be
_SHARP = 96  # pixels of a side up to which images are enlarged pixel by pixel


def draw(comparisons: Sequence[Comparison]) -> Image.Image:
    """All comparisons from top to bottom."""
    panels = [_panel(one) for one in comparisons]
    return framed(stacked(panels, 2 * _MARGIN, _PAPER), _MARGIN, _PAPER)


def told_bytes(coded: Coded) -> str:
    return "no bytes" if coded.bytes is None else f"{coded.bytes:,} bytes"


def told_psnr(coded: Coded) -> str:
    return "lossless" if math.isinf(coded.psnr) else f"{coded.psnr:.1f} dB"


def _panel(one: Comparison) -> Image.Image:
    rows = [beside([_original(one), *(_own(step, one) for step in one.steps)], _GAP, _PAPER)]
    if one.steps[0].others:
        rows += [_row(name, one) for name in CODECS]
    width = rows[0].width
    title = _line(f"{printable(one.name)}  by  {printable(one.model)}", width, 36, 26, _INK)
    about = _line(one.prepared, width, 28, 18, _SOFT)
    return stacked([title, about, stacked(rows, 22, _PAPER)], 8, _PAPER)


def _original(one: Comparison) -> Image.Image:
    width, height = one.original.size
    about = _caption(f"{width}x{height} pixels", _SOFT, 17)
    return stacked([_shown(one.original, one), _caption("original", _INK, 20), about], 0, _PAPER)


def _own(step: Step, one: Comparison) -> Image.Image:
    plural = "" if step.tokens == 1 else "s"
    head = _caption(f"{step.tokens:,} token{plural}", _INK, 20)
    return stacked([_shown(step.own.image, one), head, _numbers(step.own)], 0, _PAPER)


def _row(codec: str, one: Comparison) -> Image.Image:
    """The files of one codec, below the reconstructions; one box where it has none."""
    runs = dict(one.runs(codec))
    only = sum(runs.values()) == len(one.steps)
    height = 84 if only else _height(one)
    cells, place = [_label(codec, height)], 0
    while place < len(one.steps):
        coded = one.steps[place].others[codec]
        if place in runs:
            cells.append(_none(codec, coded, runs[place], height))
        else:
            cells.append(stacked([_shown(coded.image, one), _numbers(coded)], 0, _PAPER))
        place += runs.get(place, 1)
    return beside(cells, _GAP, _PAPER)


def _label(codec: str, height: int) -> Image.Image:
    """The name of a codec, in the column of the original."""
    label = Image.new("RGB", (_CELL, height), _PAPER)
    lines = [
        (codec, 26, _INK, 34),
        ("the best file that", 17, _SOFT, 24),
        ("is not larger", 17, _SOFT, 24),
    ]
    top = (height - sum(line[3] for line in lines)) // 2
    for words, size, ink, tall in lines:
        label.paste(_line(words, _CELL, tall, size, ink), (0, top))
        top += tall
    return label


def _none(codec: str, coded: Coded, columns: int, height: int) -> Image.Image:
    """An empty box over some columns that says that no file is so small."""
    width = columns * (_CELL + _GAP) - _GAP
    box = Image.new("RGB", (width, height), _FIELD)
    lines = [f"no {codec} file is this small"] if columns > 1 else ["no file is this small"]
    lines = [(lines[0], _SOFT), (f"smallest: {coded.bytes:,} bytes", _MARK)]
    for number, (words, ink) in enumerate(lines):
        image = text(words, width - 8, 26, size=18, ink=ink, paper=_FIELD, centered=True)
        box.paste(image, (4, height // 2 - 27 + 27 * number))
    ImageDraw.Draw(box).rectangle([0, 0, width - 1, height - 1], outline=_PALE, width=2)
    return box


def _numbers(coded: Coded) -> Image.Image:
    size = "" if coded.bytes is None else f"{told_bytes(coded)}, "
    return _caption(f"{size}{told_psnr(coded)}", _SOFT, 17)


def _height(one: Comparison) -> int:
    return max(48, min(4 * _CELL, round(_CELL * one.original.height / one.original.width)))


def _shown(image: Image.Image, one: Comparison) -> Image.Image:
    """An image as wide as a cell."""
    size = (_CELL, _height(one))
    if max(image.size) <= _SHARP:
        return image.resize(size, Image.Resampling.NEAREST)
    return image.resize(size, Image.Resampling.LANCZOS)


def _caption(words: str, ink: tuple[int, int, int], size: int) -> Image.Image:
    return text(words, _CELL, size + 10, size=size, ink=ink, paper=_PAPER, centered=True)


def _line(words: str, width: int, height: int, size: int, ink: tuple[int, int, int]) -> Image.Image:
    return text(words, width, height, size=size, ink=ink, paper=_PAPER)
