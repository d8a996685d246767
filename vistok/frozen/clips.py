"""Preprocessing of clips for video networks: named presets, since programs, and so FVDs, differ.

- `larp`: every frame resized to the square, bilinear; values stay unrounded. A clip that is not
  square is stretched (LARP's are square).
- `omnitokenizer`: the same after 255 x was truncated to integers, as OmniTokenizer, TATS and
  Open-MAGVIT2 store clips in 8 bits before they measure. Truncation darkens a clip by half a gray
  level on average, so the two presets give different numbers on float clips, and equal ones on
  clips that came from 8 bits.
- `styleganv`: the short side to the square's side, then the center; unrounded. common_metrics'
  preset of that name.
- `videogpt`: the same after truncation to 8 bits: VideoGPT's, and common_metrics' of that name.

All of them are bilinear with pixel centers at half-integers and without antialias, frame by frame.

Letters: B batch, T frames, H W pixels, S side of the square.
"""

from __future__ import annotations

import math

from torch import Tensor

from vistok.core.errors import InputError
from vistok.layers.resize import resize


def stretched(clips: Tensor, side: int) -> Tensor:
    """clips [B, 3, T, H, W] in 0..1 -> [B, 3, T, S, S]."""
    return _framewise(clips.clamp(0, 1), (side, side))


def truncated(clips: Tensor, side: int) -> Tensor:
    """The same for clips truncated to 8 bits."""
    return _framewise(_eight_bits(clips), (side, side))


def centered(clips: Tensor, side: int) -> Tensor:
    """The center square of the clip whose short side is S."""
    height, width = clips.shape[-2:]
    scale = side / min(height, width)
    size = (side, math.ceil(width * scale)) if height < width else (math.ceil(height * scale), side)
    clips = _framewise(clips.clamp(0, 1), size)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    return clips[..., top : top + side, left : left + side]


def truncated_center(clips: Tensor, side: int) -> Tensor:
    """The same for clips truncated to 8 bits."""
    return centered(_eight_bits(clips), side)


PRESETS = {
    "larp": stretched,
    "omnitokenizer": truncated,
    "styleganv": centered,
    "videogpt": truncated_center,
}


def preset(name: str):
    """(clips, side) -> clips; ValueError for an unknown name."""
    if name not in PRESETS:
        raise InputError(f"unknown preset of clips '{name}'; valid: {', '.join(PRESETS)}")
    return PRESETS[name]


def _eight_bits(clips: Tensor) -> Tensor:
    # 255 (k / 255) is exactly k in fp32 for every k: what came from 8 bits loses nothing.
    return (clips.clamp(0, 1) * 255).floor() / 255


def _framewise(clips: Tensor, size: tuple[int, int]) -> Tensor:
    frames = clips.transpose(1, 2)  # [B, T, 3, H, W]
    small = resize(frames.flatten(0, 1), size, "bilinear", antialias=False)
    return small.unflatten(0, frames.shape[:2]).transpose(1, 2)
