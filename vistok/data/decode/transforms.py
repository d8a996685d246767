"""Crop and resize, always antialiased (PIL), always from keyed numbers.

`center` and `random` cut the window out of the original and resize only that, so a 10000x20 strip
costs no more than any other image. `adm` is the evaluation crop of ADM (halve with a box filter
while both sides are at least twice the target, then bicubic, then cut the middle), used by pFID and
most published rFID numbers. Without augmentation (validation, evaluation, caches) a random crop
becomes the center.
Mirroring is not done here but on the device (`loader.to_device`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from vistok.core.errors import InputError
from vistok.core.rng import Rng
from vistok.data.captions import CaptionConfig
from vistok.data.decode.images import to_tensor

if TYPE_CHECKING:
    from PIL.Image import Image

Crop = Literal["center", "random", "adm"]
Filter = Literal["bicubic", "bilinear", "lanczos", "box"]
LARGEST = 2**14  # pixels of a side
_WIDE = 16_000_000  # pixels of a scaled strip above which `adm` computes its middle alone


class TransformConfig(CaptionConfig):
    """Base of the image data configs: cropping and resizing of images to pixels [3, H, W]."""

    size: int | tuple[int, int] = 32
    """Side of the square, or (height, width)."""
    crop: Crop = "center"
    """Largest window at the center, a random window (training only), or ADM's center crop."""
    filter: Filter = "bicubic"
    """Resampling filter, antialiased."""
    min_share: float = Field(default=1.0, gt=0.0, le=1.0)
    """`random`: side of the smallest window, as a share of the largest that fits (uniform)."""
    pad: int = Field(default=0, ge=0, le=2**14)
    """Training: reflect this many pixels on each side after resizing, then cut at random."""
    flip: bool = True
    """Training: mirror half of the samples."""

    @property
    def hw(self) -> tuple[int, int]:
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @model_validator(mode="after")
    def _sane(self) -> TransformConfig:
        if min(self.hw) < 1:
            raise InputError(f"size={self.size}: expected sides of 1 or more")
        if max(self.hw) > LARGEST:
            raise InputError(f"size={self.size}: expected sides of {LARGEST:,} pixels or fewer")
        if self.crop == "adm" and self.hw[0] != self.hw[1]:
            raise InputError(f"crop=adm cuts squares; size={self.size} is none, use crop=center")
        if self.crop == "adm" and self.filter != "bicubic":
            raise InputError(f"crop=adm is bicubic by definition; got filter={self.filter}")
        if self.crop != "random" and self.min_share != 1.0:
            raise InputError(f"min_share={self.min_share} needs crop=random; got crop={self.crop}")
        if self.pad >= min(self.hw):
            raise InputError(f"pad={self.pad} reflects more than size={self.size} holds")
        return self


class Transform:
    """`config` applied: `prepare` is the same each time, `finish` may vary.

    augment: False replaces a random crop by the center, and neither pads nor mirrors.
    """

    def __init__(self, config: TransformConfig, *, augment: bool) -> None:
        self.hw = config.hw
        self.crop: Crop = "center" if config.crop == "random" and not augment else config.crop
        self.filter, self.min_share = config.filter, config.min_share
        self.pad = config.pad if augment else 0
        self.flip = config.flip and augment

    def record(self) -> dict[str, Any]:
        """JSON for data records: size, crop, filter, padding and mirroring."""
        return {
            "size": list(self.hw),
            "crop": self.crop,
            "filter": self.filter,
            "min_share": self.min_share if self.crop == "random" else 1.0,
            "pad": self.pad,
            "flip": self.flip,
        }

    def __call__(self, image: Image, index: int, epoch: int = 0, seed: int = 0) -> Tensor:
        """PIL RGB -> [3, H, W] uint8; what varies is keyed by (seed, epoch, index)."""
        return self.finish(self.prepare(image), index, epoch, seed)

    def clip(
        self, frames: Iterable[np.ndarray], index: int, epoch: int = 0, seed: int = 0
    ) -> Tensor:
        """Frames [h, w, 3] uint8 of one size -> [3, T, H, W] uint8, one at a time.

        The draws are those of the sample, so every frame is cut by the same window. Frames that
        are only cut never become images of PIL, which would cost as much as to decode small ones.
        """
        found = [self._cut(frame, index, epoch, seed) for frame in frames]
        pixels = np.empty((3, len(found), *self.hw), np.uint8)
        for t, one in enumerate(found):
            pixels[:, t] = one
        return torch.from_numpy(pixels)

    def _cut(self, frame: np.ndarray, index: int, epoch: int, seed: int) -> np.ndarray:
        """A frame [h, w, 3] -> [3, H, W], perhaps a view of it."""
        if self.crop == "random" or self.pad:
            return self(_as_image(frame), index, epoch, seed).numpy()
        if self.crop == "center":
            left, top, right, bottom = _center((frame.shape[1], frame.shape[0]), self.hw)
            if (bottom - top, right - left) == self.hw:
                return frame[top:bottom, left:right].transpose(2, 0, 1)
        return np.asarray(self.prepare(_as_image(frame))).transpose(2, 0, 1)

    def prepare(self, image: Image) -> Image:
        """The steps that do not depend on the draws; their result may be kept in memory."""
        if self.crop == "random":
            return image
        if self.crop == "adm":
            return adm_crop(image, self.hw[0])
        return resize_window(image, _center(image.size, self.hw), self.hw, self.filter)

    def finish(self, image: Image | np.ndarray, index: int, epoch: int, seed: int) -> Tensor:
        """The steps that depend on the draws. `image`: from `prepare`, PIL or [h, w, 3] uint8."""
        varies = self.crop == "random" or self.pad
        draws = Rng(seed, "crop", epoch).generator(index).random(5) if varies else None
        if self.crop == "random":
            image = _as_image(image)
            box = _random(image.size, self.hw, self.min_share, *draws[:3])
            image = resize_window(image, box, self.hw, self.filter)
        if not self.pad and not isinstance(image, np.ndarray):
            return to_tensor(image)
        pixels_HWC = np.asarray(image)
        if self.pad:
            rows = _reflected(self.hw[0], self.pad, draws[3])
            columns = _reflected(self.hw[1], self.pad, draws[4])
            pixels_HWC = pixels_HWC[rows][:, columns]
        # A copy in any case: the array may be a view of a cache.
        return torch.from_numpy(pixels_HWC.transpose(2, 0, 1).copy())


def resize_window(
    image: Image, box: tuple[int, int, int, int], hw: tuple[int, int], filter: Filter
) -> Image:
    """The window `box` (left, top, right, bottom) resized to (height, width)."""
    from PIL.Image import Resampling

    if (box[3] - box[1], box[2] - box[0]) == hw:
        return image if box == (0, 0, *image.size) else image.crop(box)
    if box != (0, 0, *image.size):
        image = image.crop(box)
    return image.resize((hw[1], hw[0]), Resampling[filter.upper()])


def adm_crop(image: Image, side: int) -> Image:
    """ADM's center crop to side x side, rounding included."""
    from PIL.Image import Resampling

    while min(image.size) >= 2 * side:
        image = image.resize((image.width // 2, image.height // 2), Resampling.BOX)
    scale = side / min(image.size)
    width, height = round(image.width * scale), round(image.height * scale)
    left, top = (width - side) // 2, (height - side) // 2
    if width * height > _WIDE:
        # The same window of the same scaled image, without the rest of it.
        box = (
            left * image.width / width,
            top * image.height / height,
            (left + side) * image.width / width,
            (top + side) * image.height / height,
        )
        return image.resize((side, side), Resampling.BICUBIC, box=box)
    image = image.resize((width, height), Resampling.BICUBIC)
    return image.crop((left, top, left + side, top + side))


def _largest(size: tuple[int, int], hw: tuple[int, int], share: float = 1.0) -> tuple[int, int]:
    """(width, height) of the largest window of the target's shape, times `share`."""
    scale = min(size[0] / hw[1], size[1] / hw[0]) * share
    return max(1, round(hw[1] * scale)), max(1, round(hw[0] * scale))


def _center(size: tuple[int, int], hw: tuple[int, int]) -> tuple[int, int, int, int]:
    width, height = _largest(size, hw)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height


def _random(
    size: tuple[int, int], hw: tuple[int, int], min_share: float, share: float, x: float, y: float
) -> tuple[int, int, int, int]:
    width, height = _largest(size, hw, min_share + (1.0 - min_share) * share)
    left = int(x * (size[0] - width + 1))
    top = int(y * (size[1] - height + 1))
    return left, top, left + width, top + height


def _reflected(side: int, pad: int, place: float) -> np.ndarray:
    """Source rows of a window of `side` in a reflected border of `pad`; the edge is not doubled."""
    rows = np.abs(np.arange(side) + int(place * (2 * pad + 1)) - pad)
    return np.where(rows < side, rows, 2 * (side - 1) - rows)


def _as_image(image: Image | np.ndarray) -> Image:
    from PIL import Image

    return Image.fromarray(image) if isinstance(image, np.ndarray) else image
