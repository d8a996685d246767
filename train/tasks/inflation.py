"""A video network that starts as an image network (MAGVIT-v2, arXiv 2310.05737, section 3.2).

A 2D kernel becomes the last frame of a causal 3D one, whose other frames are zero, so that every
frame is read alone; a convolution that also makes new frames gives each the same maps. Images then
pass the video network as they passed the image one.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def inflated(given: Mapping[str, Tensor], mine: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of an image network in the shapes of a video one, by name.

    Names that only one of them has, and tensors that cannot be inflated, stay as they are given.
    """
    return {
        name: _inflated(tensor, mine[name].shape) if name in mine else tensor
        for name, tensor in given.items()
    }


def _inflated(tensor: Tensor, shape: torch.Size) -> Tensor:
    """[C', C, h, w] -> [n C', C, t, h, w], or a vector [C'] -> [n C']; others as they are.

    Of the n C' channels, n frames of C' each, frames are outside (`ShuffledUp`).
    """
    frames = _frames(tensor, shape)
    if tensor.ndim == 1 and shape == (frames * len(tensor),):
        return tensor.repeat(frames)
    if tensor.ndim == 4 and len(shape) == 5:
        last = tensor.repeat(frames, 1, 1, 1)
        if (*last.shape[:2], shape[2], *last.shape[2:]) == tuple(shape):
            wide = last.new_zeros(shape)
            wide[:, :, -1] = last
            return wide
    return tensor


def _frames(tensor: Tensor, shape: torch.Size) -> int:
    """1, or 2 where there are twice as many channels."""
    return 2 if tensor.ndim and len(shape) and shape[0] == 2 * len(tensor) else 1
