"""Pixels: the space that every tokenizer reads and paints unless told otherwise."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from vistok.config import Config
from vistok.dice import Draws
from vistok.registry import register


class PixelsConfig(Config):
    kind: Literal["pixels"] = "pixels"


@register("space", PixelsConfig)
class Pixels(nn.Module):
    """The identity, both ways. (A space is a Module, so its way in is `enter`, not `to`.)"""

    def __init__(self, config: PixelsConfig, image_size: tuple[int, int]) -> None:
        super().__init__()

    def enter(self, pixels: Tensor, draws: Draws | None = None) -> Tensor:
        return pixels

    def back(self, y: Tensor) -> Tensor:
        return y
