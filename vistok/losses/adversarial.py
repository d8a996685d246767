"""Hinge GAN with start step, ramp, adaptive weight and LeCam (VQGAN, arXiv 2012.09841).

Generator: -mean D(fake). Discriminator: (mean relu(1 - D(real)) + mean relu(1 + D(fake))) / 2, plus
LeCam (arXiv 2104.03310): relu(mean D(real) - ema_fake)^2 + relu(ema_real - mean D(fake))^2.
The adaptive weight is |grad of the other losses| / (|grad of the GAN loss| + 1e-4) at the decoder's
last layer, clamped, over the global batch.
Discriminators see single frames: a clip counts as its frames.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from vistok.config import ConfigError, PartOf
from vistok.config.registry import build, register
from vistok.core.draws import PartDraws
from vistok.core.records import Batch, Reconstruction
from vistok.core.schedules import Progress, ramp
from vistok.layers.frames import frames
from vistok.losses.base import Loss, LossConfig, OwnPhase
from vistok.losses.discriminators import PatchGANConfig
from vistok.runtime import distributed
from vistok.runtime.modes import evaluating


class AdversarialConfig(LossConfig):
    kind: Literal["adversarial"] = "adversarial"
    discriminator: Annotated[Any, PartOf("discriminator")] = PatchGANConfig()
    weight: float = Field(default=0.5, ge=0)
    """Weight of the generator's term; 0 = it is left out."""
    start: int = Field(default=20_000, ge=0)
    """First step at which the tokenizer sees the discriminator."""
    discriminator_start: int | None = None
    """First step at which the discriminator trains; null = `start`."""
    ramp: int = Field(default=0, ge=0)
    """Steps over which the weight grows from 0."""
    adaptive: bool = True
    """Balance against the other losses by their gradients at the last layer."""
    adaptive_max: float = 1e4
    """Largest adaptive weight."""
    lecam: float = Field(default=0.0, ge=0)
    """Weight of LeCam; 0.001 in TiTok and RobusTok."""
    lecam_decay: float = 0.999
    """Decay of the running means that LeCam compares with."""
    lr: float | None = None
    """Peak learning rate of the discriminator; null = that of the run."""

    @classmethod
    def tiny(cls) -> AdversarialConfig:
        return cls(start=0, discriminator=PatchGANConfig.tiny())


class LeCamDiscriminator(nn.Module):
    """A discriminator with LeCam's running means, so that both are trained and saved as one."""

    def __init__(self, discriminator: nn.Module) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.register_buffer("ema_real", torch.zeros(()))
        self.register_buffer("ema_fake", torch.zeros(()))

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] in 0..1 -> logits."""
        return self.discriminator(pixels)


@register("loss", AdversarialConfig)
class AdversarialLoss(Loss):
    """`forward` is the tokenizer's term, `step` the discriminator's phase."""

    balanced = "adversarial"

    def __init__(self, config: AdversarialConfig) -> None:
        super().__init__(config)
        self.uses_last_layer = config.adaptive
        self.discriminator = LeCamDiscriminator(build(config.discriminator))
        self._means: list[Tensor] = []

    def bind(self, tokenizer: nn.Module) -> None:
        with torch.no_grad(), evaluating(self.discriminator):
            try:
                self.discriminator(torch.zeros(1, 3, *tokenizer.shape.image_size))
            except RuntimeError:
                raise ConfigError(
                    f"discriminator: images of {tokenizer.shape.image_size} are too small for "
                    f"layers={getattr(self.config.discriminator, 'layers', '?')}; use fewer layers"
                ) from None

    @property
    def discriminator_start(self) -> int:
        """First step at which the discriminator trains."""
        start = self.config.discriminator_start
        return self.config.start if start is None else start

    @property
    def phase(self) -> OwnPhase:
        return OwnPhase("discriminator", start=self.discriminator_start, lr=self.config.lr)

    def forward(
        self, reconstruction: Reconstruction, batch: Batch, progress: Progress
    ) -> dict[str, Tensor]:
        if not self.config.weight or progress.step < self.config.start:
            return {}
        self.discriminator.requires_grad_(False)  # it has its own phase
        fake = self.discriminator(frames(reconstruction.pixels))
        self.discriminator.requires_grad_(True)
        return {"adversarial": -fake.float().mean()}

    def weights(self, progress: Progress) -> dict[str, float]:
        return {
            "adversarial": self.config.weight
            * ramp(progress.step, self.config.start, self.config.ramp)
        }

    def balance(self, others: Tensor, term: Tensor, last_layer: nn.Parameter) -> Tensor:
        """The adaptive weight (a scalar without gradient).

        1 if `adaptive` is off, or if no other term reaches the last layer to balance against.
        """
        if not self.config.adaptive or not others.requires_grad:
            return term.new_ones(())
        found = [
            torch.autograd.grad(loss, last_layer, retain_graph=True, allow_unused=True)[0]
            for loss in (others, term)
        ]
        if found[0] is None:  # losses of codes alone
            return term.new_ones(())
        norms = [distributed.mean(gradient).norm() for gradient in found]
        return (norms[0] / (norms[1] + 1e-4)).clamp(0.0, self.config.adaptive_max).detach()

    def hand_on(
        self, reconstruction: Reconstruction, batch: Batch, progress: Progress
    ) -> tuple[Tensor, Tensor]:
        """(real, fake) images, or frames of clips."""
        return frames(reconstruction.target), frames(reconstruction.pixels.detach())

    def step(
        self,
        network: nn.Module,
        handed: tuple[Tensor, Tensor],
        batch: Batch,
        draws: PartDraws,
        progress: Progress,
    ) -> dict[str, Tensor]:
        loss, logged = self.discriminate(network, *handed)
        return {"loss": loss, **logged}

    def discriminate(
        self, discriminator: nn.Module, real: Tensor, fake: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The discriminator's loss on real and detached fake images, and what to log.

        Args:
            discriminator: ours, perhaps wrapped for several processes.
        """
        # One pass over both halves, so that a wrapped module runs once a step.
        logits = discriminator(torch.cat([real, fake])).float()
        on_real, on_fake = logits.chunk(2)
        hinge = (F.relu(1 - on_real).mean() + F.relu(1 + on_fake).mean()) / 2
        logged = {
            "discriminator": hinge,
            "logits_real": on_real.mean(),
            "logits_fake": on_fake.mean(),
            "discriminator_accuracy": ((on_real > 0).float().mean() + (on_fake < 0).float().mean())
            / 2,
        }
        if not self.config.lecam:
            return hinge, logged
        means = [distributed.mean(half.mean()) for half in (on_real, on_fake)]
        lecam = (
            F.relu(means[0] - self.discriminator.ema_fake).square()
            + F.relu(self.discriminator.ema_real - means[1]).square()
        )
        self._means.append(torch.stack(means).detach())
        return hinge + self.config.lecam * lecam, {**logged, "lecam": lecam}

    def forget(self) -> None:
        self._means.clear()

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the EMAs by this step's means; they are used before they are updated."""
        if not self._means:
            return
        real, fake = torch.stack(self._means).mean(0)
        self._means.clear()
        for ema, mean in ((self.discriminator.ema_real, real), (self.discriminator.ema_fake, fake)):
            ema.lerp_(mean, 1 - self.config.lecam_decay)
