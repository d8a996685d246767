"""Windows of images at their own resolution, for networks that know small images.

Letters: B batch, K windows of an image, s side of a window.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vistok.core.errors import InputError


def windows(images: Tensor, uniform: Tensor, side: int) -> Tensor:
    """[B, C, H, W] -> [B * K, C, s, s], the windows of an image one behind the other.

    Args:
        uniform: [B, K, 2] in 0..1: place of a window, down and to the right, among all that fit.
    Raises ValueError for images that are smaller than a window.
    """
    height, width = images.shape[-2:]
    if min(height, width) < side:
        raise InputError(
            f"windows of {side} pixels do not fit into images of {height}x{width}; use a smaller "
            "window, or windows=null"
        )
    room = torch.tensor([height - side + 1, width - side + 1], device=uniform.device)
    corners = (uniform * room).long().minimum(room - 1).tolist()
    return torch.stack(
        [
            images[i, :, top : top + side, left : left + side]
            for i, places in enumerate(corners)
            for top, left in places
        ]
    )
