"""Patches of pixels (or of any other space with channels and sides) from rows of a transformer."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import nn

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.shapes import Shape
from vistok.heads.base import Head
from vistok.layers.patchify import PatchesConfig, Unpatchify


class PixelsHeadConfig(Config):
    kind: Literal["pixels"] = "pixels"
    conv: bool = False
    """A 3x3 convolution behind the patches (TiTok's pixel head)."""
    smooth: int = Field(default=0, ge=0, le=64)
    """Width of a residual pair of 3x3 convolutions behind the patches; 0 = none."""
    gain: float = Field(default=0.1, ge=0)
    """Scale of the layer at the start: images begin near grey, contrast is learned; 0: the layer
    begins as zeros (LARP)."""


@register("head", PixelsHeadConfig)
class PixelsHead(Unpatchify, Head):
    def __init__(
        self, config: PixelsHeadConfig, patches: PatchesConfig, shape: Shape, width: int
    ) -> None:
        super().__init__(patches, shape, width, smooth=config.smooth, conv=config.conv)
        self.config = config

    @torch.no_grad()
    def start(self) -> None:
        self.proj.weight.mul_(self.config.gain)
        if self.smooth is not None:
            nn.init.zeros_(self.smooth[-1].weight)
