"""Pixels: the space that every tokenizer reads and decodes into unless told otherwise."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.draws import Draws


class PixelsConfig(Config):
    kind: Literal["pixels"] = "pixels"


@register("space", PixelsConfig)
class Pixels(nn.Module):
    """The identity, both ways. (A space is a Module, so its way in is `forward`.)"""

    def __init__(self, config: PixelsConfig, image_size: tuple[int, int]) -> None:
        super().__init__()

    def forward(self, pixels: Tensor, draws: Draws | None = None) -> Tensor:
        return pixels

    def inverse(self, y: Tensor) -> Tensor:
        return y
