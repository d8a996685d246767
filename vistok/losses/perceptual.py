"""Perceptual loss: distance between a frozen network's views of prediction and target."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.records import Batch, Reconstruction
from vistok.core.schedules import Progress
from vistok.frozen import perceptual_network
from vistok.losses.base import Loss


class PerceptualConfig(Config):
    kind: Literal["perceptual"] = "perceptual"
    network: Literal["lpips-vgg", "lpips-alex", "vistok-cnn", "convnext-s-logits"] = "lpips-vgg"
    """vistok-cnn is the embedded network; its distance is no LPIPS. convnext-s-logits compares the
    logits of an ImageNet classifier (TiTok) and is meant to stand beside LPIPS in the list of
    losses: alone it leaves grey noise. TA-TiTok's lpips-convnext_s-1.0-0.1 at weight 1.1 is
    lpips-vgg with weight 1.0 and convnext-s-logits with weight 0.1."""
    weights_path: str | None = None
    """Local weights; None = where the network's library keeps or downloads them."""
    weight: float = Field(default=1.0, ge=0)
    start: int = Field(default=0, ge=0)
    """First step; a late start saves most of the network's cost."""

    @classmethod
    def tiny(cls) -> PerceptualConfig:
        return cls(network="vistok-cnn")


@register("loss", PerceptualConfig)
class PerceptualLoss(Loss):
    def __init__(self, config: PerceptualConfig) -> None:
        super().__init__()
        self.config = config
        self.network = perceptual_network(config.network, config.weights_path)
        # Named apart, since both kinds may be asked for at once.
        self.name = "logits" if config.network.endswith("-logits") else "perceptual"

    def forward(
        self, reconstruction: Reconstruction, batch: Batch, progress: Progress
    ) -> dict[str, Tensor]:
        if progress.step < self.config.start:
            return {}
        distance = self.network(reconstruction.pixels, reconstruction.target)
        return {self.name: distance.float().mean()}

    def weights(self, progress: Progress) -> dict[str, float]:
        return {self.name: self.config.weight}
