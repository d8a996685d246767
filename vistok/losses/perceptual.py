"""Perceptual loss: distance between a frozen network's features of prediction and target.

The networks see single frames: a clip counts as its frames.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from vistok.config.registry import register
from vistok.core.draws import PartDraws
from vistok.core.records import Batch, Reconstruction
from vistok.core.rng import Rng
from vistok.core.schedules import Progress, ramp
from vistok.frozen import perceptual_network
from vistok.layers.frames import frames
from vistok.losses.base import Loss, LossConfig
from vistok.losses.windows import windows


class PerceptualConfig(LossConfig):
    kind: Literal["perceptual"] = "perceptual"
    network: Literal[
        "lpips-vgg",
        "lpips-alex",
        "vistok-cnn",
        "convnext-s-logits",
        "inception-pool",
        "inception-pool-510",
    ] = "lpips-vgg"
    """vistok-cnn is the embedded network; its distance is no LPIPS. convnext-s-logits compares the
    logits of an ImageNet classifier (TiTok) and is meant to stand beside LPIPS in the list of
    losses: alone it leaves grey noise. TA-TiTok's lpips-convnext_s-1.0-0.1 at weight 1.1 is
    lpips-vgg with weight 1.0 and convnext-s-logits with weight 0.1. inception-pool compares the
    features that rFID is made of, which then measures what was trained for; with
    inception-pool-510 they are those of pixels of 0..510, a slip of GPSToken's code."""
    weights_path: str | None = None
    """Local weights; null = where the network's library keeps or downloads them."""
    weight: float = Field(default=1.0, ge=0)
    """Weight of the distance."""
    start: int = Field(default=0, ge=0)
    """First step; a late start saves most of the network's cost."""
    ramp: int = Field(default=0, ge=0)
    """Steps from `start` over which the weight grows from 0."""
    windows: int | None = Field(default=None, ge=1, le=256)
    """Random windows of each image that the network sees at their own resolution, instead of the
    whole image at the network's; null = the whole image."""
    window: int = Field(default=32, ge=8, le=2**12)
    """Side of such a window in pixels; vistok-cnn resizes all but 32 to 32."""

    @classmethod
    def tiny(cls) -> PerceptualConfig:
        return cls(network="vistok-cnn")


@register("loss", PerceptualConfig)
class PerceptualLoss(Loss):
    """[B, 3, H, W] or [B, 3, T, H, W] -> `perceptual`; `logits` for networks of logits,
    `inception` for FID's."""

    def __init__(self, config: PerceptualConfig) -> None:
        super().__init__(config)
        self.network = perceptual_network(config.network, config.weights_path)
        # Named apart, since both kinds may be asked for at once.
        self.term = "logits" if config.network.endswith("-logits") else "perceptual"
        if config.network.startswith("inception-pool"):
            self.term = "inception"

    def draw(self, index: Tensor, rng: Rng, progress: Progress) -> PartDraws | None:
        if self.config.windows is None:
            return None
        return PartDraws(uniform=rng.uniform(index, (self.config.windows, 2)))

    def forward(
        self, reconstruction: Reconstruction, batch: Batch, progress: Progress
    ) -> dict[str, Tensor]:
        if progress.step < self.config.start:
            return {}
        pixels, target = frames(reconstruction.pixels), frames(reconstruction.target)
        if self.config.windows is not None and reconstruction.draws is not None:
            uniform = reconstruction.draws.part(f"loss.{self.key}").uniform.to(pixels.device)
            uniform = uniform.repeat_interleave(len(pixels) // len(uniform), 0)  # frames of a clip
            pixels = windows(pixels, uniform, self.config.window)
            target = windows(target, uniform, self.config.window)
        distance = self.network(pixels, target)
        return {self.term: distance.float().mean()}

    def weights(self, progress: Progress) -> dict[str, float]:
        grown = ramp(progress.step, self.config.start, self.config.ramp)
        return {self.term: self.config.weight * (grown if self.config.ramp else 1.0)}
