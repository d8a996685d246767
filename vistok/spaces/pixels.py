"""Pixels, shifted and scaled: the space of every tokenizer that names no other."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.draws import PartDraws
from vistok.core.shapes import Shape
from vistok.spaces.base import Space


class PixelsConfig(Config):
    kind: Literal["pixels"] = "pixels"
    mean: float = 0.5
    std: float = Field(default=0.5, gt=0)
    """Pixels p in 0..1 become (p - mean) / std: 0.5 and 0.5 give -1..1, 0 and 1 leave them as they
    are, 0.5 and 0.25 give about unit variance."""


@register("space", PixelsConfig)
class Pixels(Space):
    def __init__(self, config: PixelsConfig, shape: Shape) -> None:
        super().__init__()
        self.config, self.shape = config, shape
        self.frame_stride = 1 if shape.is_clip else None
        self.is_identity = config.mean == 0 and config.std == 1

    def forward(self, pixels: Tensor, draws: PartDraws | None = None, stream: Any = None) -> Tensor:
        return pixels if self.is_identity else (pixels - self.config.mean) / self.config.std

    def inverse(self, y: Tensor, stream: Any = None) -> Tensor:
        return y if self.is_identity else y * self.config.std + self.config.mean
