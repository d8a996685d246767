"""Perceptual loss: distance between a frozen network's features of prediction and target."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from vistok.config import Config
from vistok.dice import Progress
from vistok.frozen import perceptual_network
from vistok.losses.base import Loss
from vistok.records import Batch, Reconstruction
from vistok.registry import register


class PerceptualConfig(Config):
    kind: Literal["perceptual"] = "perceptual"
    network: Literal["lpips-vgg", "lpips-alex", "vistok-cnn"] = "lpips-vgg"
    """vistok-cnn is the embedded network; its distance is no LPIPS."""
    weights_path: str | None = None
    """Local weights; None = where the network's library keeps or downloads them."""
    weight: float = Field(default=1.0, ge=0)
    start: int = Field(default=0, ge=0)
    """First step; a late start saves most of the network's cost."""


@register("loss", PerceptualConfig)
class PerceptualLoss(Loss):
    def __init__(self, config: PerceptualConfig) -> None:
        super().__init__()
        self.config = config
        self.network = perceptual_network(config.network, config.weights_path)

    def forward(
        self, reconstruction: Reconstruction, batch: Batch, progress: Progress
    ) -> dict[str, Tensor]:
        if progress.step < self.config.start:
            return {}
        distance = self.network(reconstruction.pixels, reconstruction.target)
        return {"perceptual": distance.float().mean()}

    def weights(self, progress: Progress) -> dict[str, float]:
        return {"perceptual": self.config.weight}
