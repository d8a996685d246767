"""Resizing of image batches: the one place where a network's own definition may resize its input.

Data crops are resized in `vistok.data`; this is for networks whose definition contains a resize.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vistok.core.errors import InputError

Mode = Literal["nearest", "bilinear", "bicubic", "area"]
_MODES = ("nearest", "bilinear", "bicubic", "area")


def resize(
    images: Tensor, size: int | tuple[int, int], mode: Mode = "bilinear", antialias: bool = True
) -> Tensor:
    """images [B, C, H, W] float -> [B, C, *size], in the same value range and dtype.

    Pixel centers at half-integers (`align_corners=False`). An image that already has that size is
    returned as it is. Bicubic may leave the value range by a little; nothing is clamped.

    Args:
        size: (height, width), or one number for a square.
        antialias: widen the filter when an image shrinks (bilinear and bicubic; the two other
            modes have no such filter and ignore it).
    Raises ValueError for integer images, another rank or an unknown mode.
    """
    if images.ndim != 4 or not images.is_floating_point():
        raise InputError(
            f"resize: images are {tuple(images.shape)} {images.dtype}; expected float [B, C, H, W]"
        )
    if mode not in _MODES:
        raise InputError(f"resize: mode='{mode}'; expected one of {', '.join(_MODES)}")
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise InputError(f"resize: size={(height, width)}; expected sides of 1 or more")
    if images.shape[-2:] == (height, width):
        return images
    if mode in ("nearest", "area"):
        return F.interpolate(images, (height, width), mode=mode)
    return F.interpolate(
        images, (height, width), mode=mode, align_corners=False, antialias=antialias
    )


def bicubic_matrix(old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """[new cells, old cells] fp32: the antialiased bicubic resize of a grid as one linear map.

    As a product it is as exact as `resize`, and its gradient is deterministic on GPUs too.
    """
    cells = old[0] * old[1]
    basis = torch.eye(cells).view(cells, 1, *old)
    return resize(basis, new, "bicubic").view(cells, -1).T.contiguous()
