"""Distance between features before and behind the bottleneck.

The encoder's are the target and get no gradient; the decoder's learn. In GigaTok (arXiv 2504.08736)
these are the map of its CNN, and the map that its Q-Former makes of the tokens.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from vistok.config import ConfigError
from vistok.config.registry import register
from vistok.core.records import Batch, Reconstruction
from vistok.core.schedules import Progress
from vistok.losses.base import Loss, LossConfig
from vistok.losses.probe import width_of
from vistok.runtime.precision import no_autocast


class FeatureReconstructionConfig(LossConfig):
    kind: Literal["feature_reconstruction"] = "feature_reconstruction"
    encoder: str | None = "z"
    """Tap of the encoder; null = the latents."""
    decoder: str | None = "z"
    """Tap of the decoder; null = its input, the quantized values."""
    how: Literal["mse", "cosine"] = "mse"
    """Mean square of the difference, or 1 - cosine over channels."""
    weight: float = Field(default=1.0, ge=0)
    stop: int | None = Field(default=None, ge=0)
    """Step from which the loss is off; null = never."""

    @classmethod
    def tiny(cls) -> FeatureReconstructionConfig:
        return cls(encoder=None, decoder=None)


@register("loss", FeatureReconstructionConfig)
class FeatureReconstructionLoss(Loss):
    """Reconstruction -> `feature_reconstruction`."""

    needs_pixels = False

    def bind(self, tokenizer: nn.Module) -> None:
        config = self.config
        before = "latents" if config.encoder is None else "encoder"
        behind = "quantized" if config.decoder is None else "decoder"
        target = width_of(tokenizer, before, config.encoder)
        source = width_of(tokenizer, behind, config.decoder)
        if target != source:
            raise ConfigError(
                f"losses: feature_reconstruction compares {target} channels of the encoder "
                f"({config.encoder or 'latents'}) with {source} of the decoder "
                f"({config.decoder or 'values'}); expected equal widths: name other taps"
            )

    def forward(
        self, reconstruction: Reconstruction, batch: Batch, progress: Progress
    ) -> dict[str, Tensor]:
        config, latents = self.config, reconstruction.latents
        if config.stop is not None and progress.step >= config.stop:
            return {}
        target = latents.values if config.encoder is None else latents.features[config.encoder]
        source = reconstruction.quantized.values
        if config.decoder is not None:
            source = reconstruction.decoded.features[config.decoder]
        with no_autocast(source.device):
            target, source = target.detach().float(), source.float()
            if config.how == "mse":
                return {"feature_reconstruction": F.mse_loss(source, target)}
            alike = F.cosine_similarity(source, target, dim=-1, eps=1e-8)
            return {"feature_reconstruction": 1 - alike.mean()}

    def weights(self, progress: Progress) -> dict[str, float]:
        return {"feature_reconstruction": self.config.weight}
