"""Flow matching: squared error of the velocity that a decoder predicts (arXiv 2209.03003)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from vistok.config import ConfigError
from vistok.config.registry import register
from vistok.core.records import Batch, Reconstruction
from vistok.core.schedules import Progress
from vistok.layers.flow import path
from vistok.layers.flow.prefix import mean_of_others
from vistok.losses.base import Loss, LossConfig


class FlowConfig(LossConfig):
    kind: Literal["flow"] = "flow"
    weight: float = Field(default=1.0, ge=0)


@register("loss", FlowConfig)
class FlowLoss(Loss):
    """Reconstruction -> `flow`: mean of |prediction - (noise - clean)|^2."""

    needs_pixels = needs_images = False
    needs_velocity = True
    needs_target_in_space = True

    def __init__(self, config: FlowConfig) -> None:
        super().__init__(config)
        self._weights = {"flow": config.weight}

    def bind(self, tokenizer: nn.Module) -> None:
        if tokenizer.sampling is None:
            raise ConfigError(
                "losses: flow compares velocities, and this decoder predicts none; expected a flow "
                "decoder (flow_vit), or the loss reconstruction"
            )

    def forward(
        self, reconstruction: Reconstruction, batch: Batch, progress: Progress
    ) -> dict[str, Tensor]:
        draws, clean = reconstruction.draws, reconstruction.target_in_space
        if draws is None or draws.part("decoder").noise is None:
            return {}  # evaluation samples: there is no velocity at one time
        clean = clean.float()
        noise = draws.part("decoder").noise.to(clean)
        found = reconstruction.decoded.prediction.float()
        velocity, noisy = path.velocity(clean, noise), reconstruction.noisy
        if noisy is None or noisy.given is None:
            return {"flow": nn.functional.mse_loss(found, velocity)}
        return {"flow": mean_of_others((found - velocity).square(), noisy.given)}

    def weights(self, progress: Progress) -> dict[str, float]:
        return self._weights
