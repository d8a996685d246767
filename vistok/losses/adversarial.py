"""Hinge GAN with start step, ramp, adaptive weight and LeCam (VQGAN, arXiv 2012.09841).

Generator: -mean D(fake). Discriminator: (mean relu(1 - D(real)) + mean relu(1 + D(fake))) / 2, plus
LeCam (arXiv 2104.03310): relu(mean D(real) - ema_fake)^2 + relu(ema_real - mean D(fake))^2.
The adaptive weight is |grad of the other losses| / (|grad of the GAN loss| + 1e-4) at the decoder's
last layer, clamped, over the global batch.
Discriminators see single frames, a clip counts as its frames, unless their `media` is "clip": then
they are given clips whole. What they see may be augmented (`augment`), and blurred at first
(`blur_steps`), in all three passes of a step: that of the tokenizer, and those over rebuilt and
real images. Each pass has random numbers of its own. `consistency` adds two passes, over rebuilt
and real images augmented once more strongly, whose logits shall be those of the passes before.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from vistok.config import ConfigError, PartOf
from vistok.config.registry import build, register
from vistok.core.draws import PartDraws
from vistok.core.errors import InputError
from vistok.core.records import Batch, Reconstruction
from vistok.core.rng import Rng
from vistok.core.schedules import Progress, ramp
from vistok.layers.frames import frames
from vistok.losses.base import Loss, LossConfig, OwnPhase
from vistok.losses.diffaug import (
    GATES,
    STRENGTHS,
    UNIFORMS,
    DiffAugConfig,
    augment,
    blurred,
    fade,
)
from vistok.losses.discriminators import PatchGANConfig
from vistok.losses.lecam import LeCamDiscriminator
from vistok.losses.noisy_pixels import noisy_pixels
from vistok.losses.probe import passed, shapes_alone
from vistok.runtime import distributed
from vistok.runtime.modes import without_gradients

_AT_ONE = math.log1p(math.e)  # softplus(1)
DISCRIMINATOR = {
    "hinge": lambda real, fake: (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2,
    "vanilla": lambda real, fake: (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2,
    "swapped": lambda real, fake: (_AT_ONE - real.mean() + math.log(2)) / 2,
    "non_saturating_mean": lambda real, fake: (
        F.softplus(-real.flatten(1).mean(1)).mean() + F.softplus(fake.flatten(1).mean(1)).mean()
    ),
}
GENERATOR = {
    "hinge": lambda fake: -fake.mean(),
    "non_saturating": lambda fake: F.softplus(-fake).mean(),
    "non_saturating_mean": lambda fake: F.softplus(-fake.flatten(1).mean(1)).mean(),
    "swapped": lambda fake: _AT_ONE - fake.mean(),
}


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
    lecam_form: Literal["means", "logits"] = "means"
    """Distances that LeCam squares: of the means of logits, or of every logit (ImageFolder)."""
    lecam_order: Literal["after", "before"] = "after"
    """When this step's means enter the running ones: after LeCam compared with them, or before
    (ImageFolder)."""
    discriminator_loss: Literal["hinge", "vanilla", "swapped", "non_saturating_mean"] = "hinge"
    """vanilla is half the cross-entropy of the logits; non_saturating_mean that of each sample's
    mean logit (Open-MAGVIT2, in no release). swapped is what LlamaGen and XQ-GAN call
    non-saturating: its cross-entropy takes the constants for the logits, so that real logits grow
    without bound and rebuilt images teach nothing."""
    generator_loss: Literal["hinge", "non_saturating", "non_saturating_mean", "swapped"] = "hinge"
    """Loss of the tokenizer: -mean D, mean softplus(-D), or mean softplus(-D) of the mean logit of
    each sample (Open-MAGVIT2). swapped is LlamaGen's and XQ-GAN's non-saturating loss: hinge's plus
    a constant."""
    smoothing: float = Field(default=0.0, ge=0, le=1)
    """Standard deviation of the noise in the targets of discriminator_loss=vanilla: real samples
    have 1 - smoothing |n| instead of 1, rebuilt ones smoothing |n| instead of 0, with n normal and
    of each sample its own (LARP: 0.15)."""
    smoothing_max: float = Field(default=0.3, ge=0, le=0.5)
    """Largest distance of a target from 1 or 0."""
    every: int = Field(default=1, ge=1)
    """Steps between two updates of the discriminator (LARP: 5)."""
    discriminator_weight: float = Field(default=1.0, gt=0)
    """Factor of the discriminator's loss (LlamaGen and XQ-GAN: that of the tokenizer's term)."""
    passes: Literal["one", "two"] = "one"
    """The discriminator sees real and rebuilt images in one batch, or one after the other, which a
    batch norm notices. Those that group the images of a batch always see them apart."""
    augment: DiffAugConfig | None = None
    """Differentiable augmentation (DiffAug) of all that the discriminator sees; null = none."""
    consistency: float = Field(default=0.0, ge=0)
    """Weight of the mean squared distance between the discriminator's logits and those of the same
    images behind `strong`; discriminator_weight leaves it alone. VFRTok: 4."""
    strong: DiffAugConfig = DiffAugConfig(cutout=0.5)
    """Augmentation of the consistency term."""
    blur_steps: int | None = Field(default=None, ge=0)
    """Steps from `start` over which a blur of all that it sees fades away; null = no blur."""
    noisy: bool = False
    """The discriminator sees each image beside the noisy one that a flow decoder was given in its
    place (epsilon-VAE); for discriminator.kind=patchgan with in_channels=6."""
    lr: float | None = None
    """Peak learning rate of the discriminator; null = that of the run."""

    @model_validator(mode="after")
    def _smooths_a_cross_entropy(self) -> AdversarialConfig:
        if self.smoothing and self.discriminator_loss != "vanilla":
            raise InputError(
                f"smoothing={self.smoothing} moves the targets of a cross-entropy, and "
                f"discriminator_loss is {self.discriminator_loss}; give vanilla, or smoothing=0"
            )
        return self

    @model_validator(mode="after")
    def _sees_its_channels(self) -> AdversarialConfig:
        channels, expected = getattr(self.discriminator, "in_channels", 3), 6 if self.noisy else 3
        if channels != expected:
            raise InputError(
                f"noisy={str(self.noisy).lower()} with discriminator.kind="
                f"{self.discriminator.kind} of {channels} channels; expected {expected}: 3 of an "
                "image and 3 of a noisy one (kind: patchgan, in_channels: 6)"
            )
        if self.noisy and (self.augment or self.consistency or self.blur_steps is not None):
            raise InputError(
                "noisy=true: augment, consistency and blur_steps change images of 3 channels; "
                "leave them out"
            )
        return self

    @classmethod
    def tiny(cls) -> AdversarialConfig:
        return cls(start=0, discriminator=PatchGANConfig.tiny())


@register("loss", AdversarialConfig)
class AdversarialLoss(Loss):
    """`forward` is the tokenizer's term, `step` the discriminator's phase."""

    balanced = "adversarial"

    def __init__(self, config: AdversarialConfig) -> None:
        super().__init__(config)
        self.uses_last_layer = config.adaptive
        self.discriminator = LeCamDiscriminator(build(config.discriminator))
        own = getattr(self.discriminator.discriminator, "uniforms", 0)
        self.media = getattr(self.discriminator.discriminator, "media", "frames")
        augmented = config.augment is not None or config.consistency > 0
        if self.media == "clip" and (augmented or config.blur_steps is not None):
            raise ConfigError(
                f"discriminator.kind={config.discriminator.kind} sees whole clips, which augment, "
                "consistency and blur_steps cannot change; leave them out"
            )
        self._uniforms = (UNIFORMS if augmented else 0, own)
        self._passes = 5 if config.consistency else 3
        separate = getattr(self.discriminator.discriminator, "separate", False)
        self._parts = 2 if separate or config.passes == "two" else 1
        self._means: list[Tensor] = []

    def bind(self, tokenizer: nn.Module) -> None:
        if self.config.noisy:
            self._inverse = noisy_pixels(tokenizer)
        with shapes_alone():
            try:
                shape = tokenizer.shape
                sides = shape.sides if self.media == "clip" else shape.image_size
                passed(self.discriminator, torch.zeros(1, 6 if self.config.noisy else 3, *sides))
            except RuntimeError:
                layers = getattr(self.config.discriminator, "layers", None)
                what = f"layers={layers}; use fewer layers"
                if layers is None:
                    what = f"kind={self.config.discriminator.kind}; use another discriminator"
                raise ConfigError(
                    f"discriminator: images of {tokenizer.shape.image_size} are too small for "
                    f"{what}"
                ) from None

    def draw(self, index: Tensor, rng: Rng, progress: Progress) -> PartDraws | None:
        """Numbers of the three passes, [B, 3, U]: the tokenizer's, over rebuilt, over real images;
        of five with `consistency`, the last two over the same images, augmented strongly.

        Those that decide for a whole batch are equal for all samples. Of smoothed targets also
        noise [B, 2], of real and of rebuilt samples.
        """
        noise = None
        if self.config.smoothing:
            noise = rng.child("targets").normal(index, (2,))
        if not sum(self._uniforms):
            return None if noise is None else PartDraws(noise=noise)
        augmented, own = self._uniforms
        batch = lambda name, count: rng.child(name).uniform(
            index, (self._passes, count), per="batch"
        )
        parts = [batch("discriminator", own)]
        if augmented:
            strengths = rng.child("strengths").uniform(index, (self._passes, STRENGTHS))
            parts = [batch("gates", GATES), strengths, *parts]
        return PartDraws(uniform=torch.cat(parts, dim=-1), noise=noise)

    def seen(
        self, pixels: Tensor, number: int, draws: PartDraws, progress: Progress
    ) -> tuple[Tensor, Tensor | None]:
        """Images as the discriminator sees them in pass `number`, and the numbers that are its own.
        Passes 3 and 4 are those behind the strong augmentation.

        Without draws nothing is augmented and the discriminator samples nothing.
        """
        if self.config.blur_steps is not None:
            strength = fade(progress.step, self.config.start, self.config.blur_steps)
            pixels = blurred(pixels, strength)
        if draws.uniform is None:
            return pixels, None
        uniform = draws.uniform[:, number].to(pixels.device)
        uniform = uniform.repeat_interleave(len(pixels) // len(uniform), dim=0)  # frames of clips
        numbers, own = uniform.split(self._uniforms, dim=-1)
        how = self.config.augment if number < 3 else self.config.strong
        if how is not None:
            pixels = (augment(pixels * 2 - 1, numbers, how) + 1) / 2
        return pixels, own if self._uniforms[1] else None

    @property
    def discriminator_start(self) -> int:
        """First step at which the discriminator trains."""
        start = self.config.discriminator_start
        return self.config.start if start is None else start

    @property
    def phase(self) -> OwnPhase:
        start, config = self.discriminator_start, self.config
        return OwnPhase("discriminator", start=start, every=config.every, lr=config.lr)

    def forward(
        self, reconstruction: Reconstruction, batch: Batch, progress: Progress
    ) -> dict[str, Tensor]:
        if not self.config.weight or progress.step < self.config.start:
            return {}
        if self.config.noisy and reconstruction.noisy is None:
            return {}  # evaluation samples: there is no noisy image of one time
        draws = reconstruction.draws
        own = PartDraws() if draws is None else draws.part(f"loss.{self.key}")
        pixels, uniform = self.seen(
            self._shown(reconstruction.pixels, reconstruction), 0, own, progress
        )
        with without_gradients(self.discriminator):  # it has its own phase
            fake = self.discriminator(pixels, uniform).float()
        return {"adversarial": GENERATOR[self.config.generator_loss](fake)}

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
        """(real, fake) images, clips, or frames of clips."""
        real, fake = reconstruction.target, reconstruction.pixels.detach()
        return self._shown(real, reconstruction), self._shown(fake, reconstruction)

    def _shown(self, pixels: Tensor, reconstruction: Reconstruction) -> Tensor:
        """Samples as the discriminator takes them: clips whole, or their frames; with `noisy` each
        beside the noisy one."""
        if self.config.noisy:
            pixels = torch.cat([pixels, self._inverse(reconstruction.noisy.x).to(pixels)], dim=1)
        return pixels if self.media == "clip" else frames(pixels)

    def step(
        self,
        network: nn.Module,
        handed: tuple[Tensor, Tensor],
        batch: Batch,
        draws: PartDraws,
        progress: Progress,
    ) -> dict[str, Tensor]:
        order = [1, 3] if self.config.consistency and draws.uniform is not None else [1]
        fakes, reals = [], []  # as they are, and augmented strongly
        for number in order:
            fakes.append(self.seen(handed[1], number, draws, progress))
            reals.append(self.seen(handed[0], number + 1, draws, progress))
        real, fake = (torch.cat([pixels for pixels, _ in half]) for half in (reals, fakes))
        uniform = None
        if fakes[0][1] is not None:
            uniform = torch.cat([numbers for _, numbers in (*fakes, *reals)])
        loss, logged = self.discriminate(network, real, fake, uniform, draws.noise, len(order))
        return {"loss": loss, **logged}

    def discriminate(
        self,
        discriminator: nn.Module,
        real: Tensor,
        fake: Tensor,
        uniform: Tensor | None = None,
        noise: Tensor | None = None,
        views: int = 1,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The discriminator's loss on real and detached fake images, and what to log.

        Args:
            discriminator: ours, perhaps wrapped for several processes.
            uniform: [2 B, U] numbers of the passes over fake and over real images.
            noise: [B, 2] of the targets of real and of fake samples; None = they are 1 and 0.
            views: of the images, one behind the other; the second is the consistency term's.
        """
        # One call for both halves, so that a wrapped module runs once a step. Where they are seen
        # one after the other, fake images come first, as in the originals.
        halves = [real, fake] if self._parts == 1 else [fake, real]
        parts = self._parts if self._parts == 1 else self._parts * views
        logits = discriminator(torch.cat(halves), uniform, parts).float().chunk(2)
        both = logits if self._parts == 1 else logits[::-1]
        (on_real, *strong_real), (on_fake, *strong_fake) = (half.chunk(views) for half in both)
        loss = DISCRIMINATOR[self.config.discriminator_loss](on_real, on_fake)
        if noise is not None:
            loss = loss + self._smoothed(on_real, on_fake, noise.to(on_real))
        logged = {
            "discriminator": loss,
            "logits_real": on_real.mean(),
            "logits_fake": on_fake.mean(),
            "discriminator_accuracy": ((on_real > 0).float().mean() + (on_fake < 0).float().mean())
            / 2,
        }
        if self.config.lecam:
            logged["lecam"] = self._lecam(on_real, on_fake)
            loss = loss + self.config.lecam * logged["lecam"]
        loss = loss * self.config.discriminator_weight
        if strong_real:
            far = (on_real - strong_real[0]).square() + (on_fake - strong_fake[0]).square()
            logged["consistency"] = far.mean() / 2
            loss = loss + self.config.consistency * logged["consistency"]
        return loss, logged

    def _smoothed(self, on_real: Tensor, on_fake: Tensor, noise: Tensor) -> Tensor:
        """The part of a cross-entropy that noise in its targets adds: logits times their change."""
        moved = (noise.abs() * self.config.smoothing).clamp(max=self.config.smoothing_max)
        moved = moved.repeat_interleave(len(on_real) // len(moved), 0)  # frames of clips
        real, fake = moved.view(-1, 2, *[1] * (on_real.ndim - 1)).unbind(1)
        return ((real * on_real).mean() - (fake * on_fake).mean()) / 2

    def _lecam(self, on_real: Tensor, on_fake: Tensor) -> Tensor:
        """LeCam's term; the means of this micro-batch are kept for `after_step`."""
        means = [distributed.mean(half.mean()) for half in (on_real, on_fake)]
        self._means.append(torch.stack(means).detach())
        ema = [self.discriminator.ema_real, self.discriminator.ema_fake]
        if self.config.lecam_order == "before":
            share = 1 - self.config.lecam_decay
            ema = [old.lerp(new.detach(), share) for old, new in zip(ema, means, strict=True)]
        if self.config.lecam_form == "means":
            on_real, on_fake = means
        far = F.relu(on_real - ema[1]).square().mean()
        return far + F.relu(ema[0] - on_fake).square().mean()

    def forget(self) -> None:
        self._means.clear()

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the running means by the mean over this step's micro-batches."""
        if not self._means:
            return
        real, fake = torch.stack(self._means).mean(0)
        self._means.clear()
        for ema, mean in ((self.discriminator.ema_real, real), (self.discriminator.ema_fake, fake)):
            ema.lerp_(mean, 1 - self.config.lecam_decay)
