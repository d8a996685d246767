"""Numbers and difference images of reconstructions; JPEG and WebP files of equal size."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vistok.data.batch import to_uint8
from vistok.metrics.quality import SSIM, SSIM_SIDE, decibels

GAIN = 4  # of difference images
_SIDE = 8  # pixels that the smallest copy of an image has
_FORMATS: dict[str, dict[str, Any]] = {
    "JPEG": {"optimize": True},
    "WebP": {"method": 4},
}


@dataclass(frozen=True)
class Quality:
    """Distance of an image from the original."""

    psnr: float  # dB; infinite for the same image
    ssim: float | None  # None of images that are smaller than its window


def quality(made: Tensor, original: Tensor) -> Quality:
    """Quality of [3, H, W] in 0..1, both rounded to 8 bits as files are."""
    made, original = _rounded(made), _rounded(original)
    if min(made.shape[1:]) < SSIM_SIDE:
        return Quality(_psnr(made, original), None)
    return Quality(_psnr(made, original), float(SSIM().each(made[None], original[None])[0]))


def _rounded(pixels: Tensor) -> Tensor:
    return to_uint8(pixels).cpu().float() / 255  # fp32: SSIM in fp64 takes ten times as long


def _psnr(made: Tensor, original: Tensor) -> float:
    return float(decibels((made - original).square().mean()))


def difference(made: Tensor, original: Tensor, gain: float = GAIN) -> Tensor:
    """Signed difference [3, H, W] around gray, `gain` times as large, cut off at 0 and 1."""
    return (0.5 + gain * (made.cpu() - original.cpu())).clamp(0, 1)


@dataclass(frozen=True)
class Squeezed:
    """An image file of a common format, of a given size or the smallest that was found."""

    format: str
    pixels: Tensor  # [3, H, W] in 0..1, decoded and enlarged to the original's size
    bytes: int
    fits: bool  # False: no file was as small as asked for; this is the smallest
    side: int  # pixels of the shorter side that the file has


def squeezed(original: Tensor, most: int, format: str) -> Squeezed:
    """The best JPEG or WebP of [3, H, W] in 0..1 with at most `most` bytes.

    Quality is searched for at the image's own size and at halves of it, which is how such few bytes
    are used best; the copy of the highest PSNR wins.
    """
    from PIL import Image

    array = to_uint8(original).permute(1, 2, 0).contiguous().cpu().numpy()
    whole = Image.fromarray(array)
    best, smallest, psnr = None, None, -1.0
    factor = 1
    while min(whole.size) // factor >= _SIDE:
        size = tuple(max(1, side // factor) for side in whole.size)
        small = whole if factor == 1 else whole.resize(size, Image.Resampling.LANCZOS)
        data = _largest(small, format, most)
        one = Squeezed(format, _decoded(data, whole.size), len(data), len(data) <= most, min(size))
        if smallest is None or one.bytes < smallest.bytes:
            smallest = one
        if one.fits:
            found = _psnr(one.pixels, _rounded(original))
            if found <= psnr:
                break  # smaller copies lose more than quality gains
            best, psnr = one, found
        factor *= 2
    return best or smallest


def _largest(image: Any, format: str, most: int) -> bytes:
    """The file of the highest quality within `most` bytes, by bisection; else of the lowest."""
    low, high = 1, 96
    best = _file(image, format, low)
    if len(best) > most:
        return best
    while high - low > 1:
        middle = (low + high) // 2
        data = _file(image, format, middle)
        if len(data) <= most:
            low, best = middle, data
        else:
            high = middle
    return best


def _file(image: Any, format: str, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, format, quality=quality, **_FORMATS[format])
    return file.getvalue()


def _decoded(data: bytes, size: tuple[int, int]) -> Tensor:
    """A file -> [3, H, W] in 0..1, enlarged to `size` (width, height)."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        image = image.convert("RGB")
        if image.size != size:
            image = image.resize(size, Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
