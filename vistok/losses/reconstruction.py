"""Losses between prediction and target, images or clips: L1, L2 (mean squared error) and smooth L1,
each a mean over everything, and 1 - cosine over channels; of pixels, or in the output space."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.core.records import Batch, Reconstruction
from vistok.core.schedules import Progress
from vistok.losses.base import Loss, LossConfig


def _cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - cosine over channels, mean over samples and positions."""
    return 1 - F.cosine_similarity(prediction, target, dim=1, eps=1e-8).mean()


_TERMS = {"l1": F.l1_loss, "l2": F.mse_loss, "smooth_l1": F.smooth_l1_loss, "cosine": _cosine}


class ReconstructionConfig(LossConfig):
    kind: Literal["reconstruction"] = "reconstruction"
    l1: float = Field(default=0.0, ge=0)
    """Weight of the mean absolute error."""
    l2: float = Field(default=1.0, ge=0)
    """Weight of the mean squared error."""
    smooth_l1: float = Field(default=0.0, ge=0)
    """Weight of smooth L1: half the square below 1, the distance minus a half above."""
    cosine: float = Field(default=0.0, ge=0)
    """Weight of 1 - cosine over channels, for features."""
    in_space: bool = False
    """What the decoder gives is compared with the target in its output space (features, latents),
    and no pixels are made."""

    @model_validator(mode="after")
    def _something(self) -> ReconstructionConfig:
        if not (self.l1 or self.l2 or self.smooth_l1 or self.cosine):
            raise InputError("l1=l2=smooth_l1=cosine=0: give one of them a weight")
        if self.cosine and not self.in_space:
            raise InputError(
                f"cosine={self.cosine} compares features, not the three colors of pixels; set "
                "in_space=true, or cosine=0"
            )
        return self


@register("loss", ReconstructionConfig)
class ReconstructionLoss(Loss):
    """[B, 3, H, W] or [B, 3, T, H, W] -> l1, l2, smooth_l1, cosine: those that have a weight."""

    def __init__(self, config: ReconstructionConfig) -> None:
        super().__init__(config)
        self.needs_pixels, self.needs_target_in_space = not config.in_space, config.in_space
        self._weights = {name: getattr(config, name) for name in _TERMS if getattr(config, name)}

    def forward(
        self, reconstruction: Reconstruction, batch: Batch, progress: Progress
    ) -> dict[str, Tensor]:
        found, target = reconstruction.pixels, reconstruction.target
        if self.config.in_space:
            found = reconstruction.decoded.estimate
            target = reconstruction.target_in_space
        found, target = found.float(), target.float()
        return {name: _TERMS[name](found, target) for name in self._weights}

    def weights(self, progress: Progress) -> dict[str, float]:
        return self._weights
