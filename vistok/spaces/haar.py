"""Haar bands: pixels as wavelet coefficients of patches (Cosmos tokenizers, arXiv 2501.03575).

log2(patch) rounds; each splits every channel along every axis into low (a + b) / 2 and high
(a - b) / 2, so that the lowest band is the plain mean of a patch. Bands stand in binary order,
(width, height) for images and (time, height, width) for clips, the first axis outermost, each with
all channels of the round before. A clip's first frame is repeated `patch` times in front, so that
1 + k x patch frames become 1 + k, and an image is a clip of one frame.
Letters: B batch, C channels, T frames, H W pixels.
"""

from __future__ import annotations

from typing import Literal

import torch
from einops import rearrange
from pydantic import Field
from torch import Tensor

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.draws import PartDraws
from vistok.core.errors import InputError
from vistok.core.shapes import Shape, latent_frames
from vistok.layers.causal_conv import Stream, starts
from vistok.spaces.base import Space

_AXES = {2: (3, 2), 3: (2, 3, 4)}  # of [B, C, (T,) H, W], the outermost band's first


class HaarConfig(Config):
    kind: Literal["haar"] = "haar"
    patch: Literal[1, 2, 4, 8, 16] = 4
    """Side of a patch, in pixels and, for clips, in frames."""
    method: Literal["haar", "rearrange"] = "haar"
    """Wavelet bands, or the pixels of a patch as channels (channel, (frame,) row, column)."""
    mean: float = 0.5
    std: float = Field(default=0.5, gt=0)
    """Pixels p in 0..1 become (p - mean) / std before: 0.5 and 0.5 give -1..1."""

    @classmethod
    def tiny(cls) -> HaarConfig:
        return cls(patch=2)


@register("space", HaarConfig)
class Haar(Space):
    def __init__(self, config: HaarConfig, shape: Shape) -> None:
        """
        Args:
            shape: of the pixels; H and W are multiples of the patch, T is 1 + k x patch.
        """
        super().__init__()
        self.config, patch, sides = config, config.patch, shape.sides
        if any(side % patch for side in shape.image_size):
            raise InputError(
                f"image_size={shape.image_size} is not a multiple of patch={patch} of the haar "
                "space; use another size or patch"
            )
        small = tuple(side // patch for side in shape.image_size)
        if shape.is_clip:
            taker = f"frames={sides[0]}: a haar space of patch={patch}"
            small = (latent_frames(sides[0], patch, taker), *small)
            self.frame_stride = patch
        self.shape = Shape(shape.channels * patch ** len(small), small)

    def forward(
        self, pixels: Tensor, draws: PartDraws | None = None, stream: Stream | None = None
    ) -> Tensor:
        """pixels [B, 3, H, W] or [B, 3, 1 + k x patch, H, W]; with a stream, the next frames."""
        patch = self.config.patch
        x = (pixels - self.config.mean) / self.config.std
        if x.ndim == 5 and starts(stream, self):
            x = torch.cat([x[:, :, :1].expand(-1, -1, patch - 1, -1, -1), x], 2)
        if self.config.method == "rearrange":
            time = "(t q) " if x.ndim == 5 else ""
            clip = ("q ", "t ") if time else ("", "")
            return rearrange(
                x,
                f"b c {time}(h y) (w x) -> b (c {clip[0]}y x) {clip[1]}h w",
                y=patch,
                x=patch,
                **({"q": patch} if time else {}),
            ).contiguous()
        for _ in range(patch.bit_length() - 1):
            bands = [x]
            for axis in _AXES[x.ndim - 2]:
                bands = [half for band in bands for half in _split(band, axis)]
            x = torch.cat(bands, 1)
        return x

    def inverse(self, y: Tensor, stream: Stream | None = None) -> Tensor:
        patch, clip = self.config.patch, y.ndim == 5
        if self.config.method == "rearrange":
            time = ("q ", "t ", "(t q) ") if clip else ("", "", "")
            y = rearrange(
                y,
                f"b (c {time[0]}y x) {time[1]}h w -> b c {time[2]}(h y) (w x)",
                y=patch,
                x=patch,
                **({"q": patch} if clip else {}),
            )
        else:
            for _ in range(patch.bit_length() - 1):
                axes = _AXES[y.ndim - 2]
                bands = list(y.chunk(2 ** len(axes), 1))
                for axis in reversed(axes):
                    pairs = zip(bands[::2], bands[1::2], strict=True)
                    bands = [_join(low, high, axis) for low, high in pairs]
                y = bands[0]
        if clip and starts(stream, self):
            y = y[:, :, patch - 1 :]
        return y * self.config.std + self.config.mean


def _split(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Low and high half of an axis of even length."""
    a, b = x.unflatten(axis, (-1, 2)).unbind(axis + 1)
    return (a + b) / 2, (a - b) / 2


def _join(low: Tensor, high: Tensor, axis: int) -> Tensor:
    return torch.stack([low + high, low - high], axis + 1).flatten(axis, axis + 1)
