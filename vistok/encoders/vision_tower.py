"""A vision tower that trains on as an encoder (TokenFlow, arXiv 2412.03069): a pretrained network
whose cells become latents, through linear, tanh, linear.

Letters: B batch, n cells of the grid, W width of the tower, D width of a latent.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.records import Condition, Latents
from vistok.core.shapes import Shape
from vistok.encoders.base import Encoder
from vistok.layers.vision_tower import VisionTower, VisionTowerConfig, tanh_head


class TowerEncoderConfig(Config):
    kind: Literal["vision_tower"] = "vision_tower"
    tower: VisionTowerConfig = VisionTowerConfig()

    @classmethod
    def tiny(cls) -> TowerEncoderConfig:
        return cls(tower=VisionTowerConfig.tiny())


@register("encoder", TowerEncoderConfig)
class TowerEncoder(Encoder):
    def __init__(self, config: TowerEncoderConfig, shape: Shape, dim: int) -> None:
        """
        Args:
            shape: of the input space, images. dim: D.
        """
        super().__init__()
        self.config = config
        self.tower = VisionTower(config.tower, shape)
        self.grids = (self.tower.grid,)
        self.head = tanh_head(config.tower.transformer.width, dim)

    def forward(self, x: Tensor, condition: Condition | None = None) -> Latents:
        """x [B, C, H, W] -> latents [B, n, D]; the tap `cells` is the tower's output [B, n, W]."""
        rows = self.tower(x)
        return Latents(self.head(rows).float(), self.grids, {"cells": rows})
