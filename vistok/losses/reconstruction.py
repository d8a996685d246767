"""Pixel losses between prediction and target: L1, L2 (mean squared error), smooth L1."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from vistok.config import Config
from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.core.records import Batch, Reconstruction
from vistok.core.schedules import Progress
from vistok.losses.base import Loss

_TERMS = {"l1": F.l1_loss, "l2": F.mse_loss, "smooth_l1": F.smooth_l1_loss}


class ReconstructionConfig(Config):
    kind: Literal["reconstruction"] = "reconstruction"
    l1: float = Field(default=0.0, ge=0)
    l2: float = Field(default=1.0, ge=0)
    smooth_l1: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _something(self) -> ReconstructionConfig:
        if not (self.l1 or self.l2 or self.smooth_l1):
            raise InputError("l1=l2=smooth_l1=0: give one of them a weight")
        return self


@register("loss", ReconstructionConfig)
class ReconstructionLoss(Loss):
    def __init__(self, config: ReconstructionConfig) -> None:
        super().__init__()
        self._weights = {name: getattr(config, name) for name in _TERMS if getattr(config, name)}

    def forward(
        self, reconstruction: Reconstruction, batch: Batch, progress: Progress
    ) -> dict[str, Tensor]:
        pixels, target = reconstruction.pixels.float(), reconstruction.target.float()
        return {name: _TERMS[name](pixels, target) for name in self._weights}

    def weights(self, progress: Progress) -> dict[str, float]:
        return self._weights
