"""Geometry: the shape of one sample in a space, and the grids of latents, values and tokens.

A grid is a tuple of sides: (N,) for a list of latents, (h, w) for an image, (t, h, w) for a clip.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from vistok.core.errors import InputError

if TYPE_CHECKING:
    from vistok.tokens import TokenSpec

Grid = tuple[int, ...]


def cells(grid: Grid) -> int:
    """Number of positions of a grid."""
    return math.prod(grid)


@dataclass(frozen=True)
class Shape:
    """Channels and sides of one sample: (H, W) of an image, (T, H, W) of a clip."""

    channels: int
    sides: Grid

    @property
    def is_clip(self) -> bool:
        return len(self.sides) == 3

    @property
    def frames(self) -> int | None:
        """T of a clip; None of an image."""
        return self.sides[0] if self.is_clip else None

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W), of each frame if it is a clip."""
        return self.sides[-2:]

    def __str__(self) -> str:
        return " x ".join(map(str, (self.channels, *self.sides)))


def latent_frames(frames: int, stride: int, taker: str) -> int:
    """1 + k of 1 + k x stride frames; InputError, which begins with `taker`, for other numbers."""
    if frames < 1 or (frames - 1) % stride:
        low = max(frames - 1, 0) // stride * stride + 1
        raise InputError(
            f"{taker} takes 1 + k x {stride}; {low}, {low + stride}, {low + 2 * stride}, ... "
            "frames work"
        )
    return 1 + (frames - 1) // stride


@dataclass(frozen=True)
class Layout:
    """Result of putting latents on grids through a quantizer: its tokens, and the decoder's input.

    L (token positions), N (latents) and M (values) need not be equal: a multi-scale quantizer of a
    16 x 16 grid has L = 680 positions and M = 256 values.
    """

    spec: TokenSpec
    values: tuple[Grid, ...]
    """Grids of the values, in order; M is the sum of their cells."""
    dim: int
    """Width of a value."""

    @property
    def count(self) -> int:
        """M: values of one sample."""
        return sum(map(cells, self.values))


def check_pixels(pixels: Tensor, shape: Shape) -> None:
    """ValueError unless pixels are floats [B, *channels and sides of the shape] in 0..1."""
    if pixels.ndim < 2 or tuple(pixels.shape[1:]) != (shape.channels, *shape.sides):
        advice = "resize and crop the image first"
        if pixels.ndim != 2 + len(shape.sides):
            advice = f"this tokenizer takes {'clips' if shape.is_clip else 'images'}"
        expected = ", ".join(map(str, ("B", shape.channels, *shape.sides)))
        raise InputError(
            f"pixels have shape {tuple(pixels.shape)}; expected [{expected}]: {advice}"
        )
    if not pixels.is_floating_point():
        raise InputError(
            f"pixels have type {pixels.dtype}; expected floats in 0..1: divide uint8 by 255"
        )
    low, high = pixels.aminmax() if pixels.numel() else (0.0, 1.0)
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # NaN fails it too
        raise InputError(
            f"pixels lie in {low:.3g}..{high:.3g}; expected 0..1: do not rescale to -1..1"
        )
