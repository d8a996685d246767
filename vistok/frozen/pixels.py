"""What published evaluation programs do to images before a network sees them, each by name.

A feature network's numbers depend on it, so every preset of `vistok.frozen.presets` names one of
these; all take uint8 RGB [B, 3, H, W] and give float32 [B, 3, side, side] with 0..255 as 0..1.

pil           stretched by Pillow's bicubic filter, antialiased, in its 8-bit arithmetic
pil_square    the same of the largest square in the center
antialiased   stretched by torch's antialiased bicubic filter (a = -0.5) in float; not rounded, and
              not clamped: overshoots of the filter stay
plain         torch's bicubic without antialias (a = -0.75) in float: where images shrink, pixels
              between the samples are never looked at; not clamped

Letters: B batch, H W pixels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from vistok.layers.resize import resize

_BITS = 22  # of Pillow's fixed-point weights: 32 less 8 of a value and 2 of head room
_A = -0.5  # of Pillow's bicubic (Keys 1981)


def pil_bicubic(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 [B, C, H, W] -> uint8 [B, C, *size], equal in every bit to Pillow's
    `resize(size, BICUBIC)` of 8-bit images: columns first, then rows, each rounded to 8 bits.

    Runs on any device that has fp64 (elsewhere on the CPU): sums of weights of 22 bits and values
    of 8 are exact in it.
    """
    home = pixels.device
    x = pixels.cpu() if home.type == "mps" else pixels
    for axis, side in ((-1, size[1]), (-2, size[0])):
        if x.shape[axis] == side:
            continue  # as Pillow does
        weights = _weights(x.shape[axis], side).to(x.device)  # [side, old side]
        wide = x.transpose(axis, -1).double() @ weights.T
        x = ((wide + 2 ** (_BITS - 1)) / 2**_BITS).floor().clamp(0, 255).transpose(axis, -1)
    return x.to(torch.uint8).to(home)


@functools.lru_cache(maxsize=16)
def _weights(old: int, new: int) -> Tensor:
    """[new, old] fp64 of whole numbers: Pillow's weights in its fixed-point form."""
    scale = old / new
    stretch = max(scale, 1.0)  # the filter widens where images shrink
    table = torch.zeros(new, old, dtype=torch.float64)
    for row in range(new):
        center = (row + 0.5) * scale
        first = max(int(center - 2 * stretch + 0.5), 0)
        last = min(int(center + 2 * stretch + 0.5), old)
        values = [_cubic((x - center + 0.5) / stretch) for x in range(first, last)]
        total = sum(values)
        for x, value in zip(range(first, last), values, strict=True):
            fixed = value / total * 2**_BITS
            table[row, x] = math.trunc(fixed + (0.5 if fixed >= 0 else -0.5))
    return table


def _cubic(x: float) -> float:
    x = abs(x)
    if x < 1:
        return ((_A + 2) * x - (_A + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * _A if x < 2 else 0.0


def center_square(pixels: Tensor) -> Tensor:
    """The largest square in the center of [..., H, W]; an odd pixel is left at the end."""
    side = min(pixels.shape[-2:])
    top, left = ((length - side) // 2 for length in pixels.shape[-2:])
    return pixels[..., top : top + side, left : left + side]


def _pil(pixels: Tensor, side: int) -> Tensor:
    return pil_bicubic(pixels, (side, side)).float() / 255


def _pil_square(pixels: Tensor, side: int) -> Tensor:
    return _pil(center_square(pixels), side)


def _antialiased(pixels: Tensor, side: int) -> Tensor:
    return resize(pixels.float() / 255, side, "bicubic", antialias=True)


def _plain(pixels: Tensor, side: int) -> Tensor:
    return resize(pixels.float() / 255, side, "bicubic", antialias=False)


PREPARE: dict[str, Callable[[Tensor, int], Tensor]] = {
    "pil": _pil,
    "pil_square": _pil_square,
    "antialiased": _antialiased,
    "plain": _plain,
}
DESCRIBED = {
    "pil": "Pillow bicubic (8 bits), stretched",
    "pil_square": "center square, Pillow bicubic (8 bits),",
    "antialiased": "torch bicubic, antialiased, unrounded and unclamped,",
    "plain": "torch bicubic, not antialiased, unrounded and unclamped,",
}
