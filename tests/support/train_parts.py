"""Parts that only tests have: `plugins=tests.support.train_parts`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses import FakeTensor

from vistok.config.registry import register
from vistok.losses.base import Loss, LossConfig, OwnPhase
from vistok.runtime import distributed


class PoisonConfig(LossConfig):
    kind: Literal["poison"] = "poison"
    steps: tuple[int, ...] = ()
    """Steps (from 0) at which it poisons."""
    rank: int = 0
    """The process on which it does."""
    where: Literal["loss", "gradient"] = "loss"


@register("loss", PoisonConfig)
class Poison(Loss):
    """Not a number, in its value or in its gradient only."""

    def __init__(self, config: PoisonConfig) -> None:
        super().__init__(config)

    def forward(self, reconstruction, batch, progress):
        pixels, term = reconstruction.pixels, reconstruction.pixels.sum() * 0.0
        if progress.step not in self.config.steps or distributed.rank() != self.config.rank:
            return {"poison": term}
        if self.config.where == "loss":
            return {"poison": term + torch.nan}
        # sqrt has an infinite slope at 0, and 0 x inf is not a number
        return {"poison": (pixels * 0.0).sum().abs().sqrt()}

    def weights(self, progress):
        return {"poison": 1.0}


class WitnessConfig(LossConfig):
    kind: Literal["witness"] = "witness"
    folder: str
    """Each process appends the samples of each of its micro-batches to `folder/RANK`."""


@register("loss", WitnessConfig)
class Witness(Loss):
    """Writes down who saw which sample."""

    def __init__(self, config: WitnessConfig) -> None:
        super().__init__(config)
        self.folder = Path(config.folder)

    def forward(self, reconstruction, batch, progress):
        if isinstance(reconstruction.pixels, FakeTensor):
            return {}  # the cost trace that counts a step's FLOP trains on nothing
        with open(self.folder / str(distributed.rank()), "a") as file:
            file.write(" ".join(map(str, batch.index.tolist())) + "\n")
        return {}

    def weights(self, progress):
        return {}


class DriftConfig(LossConfig):
    kind: Literal["drift"] = "drift"
    step: int = 0
    """Step at which process 1 changes one of its weights."""


@register("loss", DriftConfig)
class Drift(Loss):
    """A replica that goes its own way: what a faulty memory, or a forgotten reduction, does."""

    def __init__(self, config: DriftConfig) -> None:
        super().__init__(config)
        self.step = config.step

    def bind(self, tokenizer):
        self.weight = [tokenizer.decoder.mask_token]  # in a list: it is not this loss's parameter

    def forward(self, reconstruction, batch, progress):
        if progress.step == self.step and distributed.rank() == 1:
            with torch.no_grad():
                self.weight[0][0] += 1e-6
        return {}

    def weights(self, progress):
        return {}


class ColorProjectorConfig(LossConfig):
    kind: Literal["color_projector"] = "color_projector"
    weight: float = 0.5
    start: int = 0


@register("loss", ColorProjectorConfig)
class ColorProjector(Loss):
    """Trains a projector together with the tokenizer: latents -> the image's mean color."""

    trained = ("projector",)

    def bind(self, tokenizer):
        self.projector = nn.Linear(tokenizer.quantizer.latent_dim, 3)

    def forward(self, reconstruction, batch, progress):
        if progress.step < self.config.start:
            return {}
        color = reconstruction.target.flatten(2).mean(-1)
        guess = self.projector(reconstruction.latents.values.float().mean(1))
        return {"color": F.mse_loss(guess, color)}

    def weights(self, progress):
        return {"color": self.config.weight}


class BrightnessProbeConfig(LossConfig):
    kind: Literal["brightness_probe"] = "brightness_probe"
    lr: float | None = None
    start: int = 0


@register("loss", BrightnessProbeConfig)
class BrightnessProbe(Loss):
    """A network with a phase of its own that is no discriminator; the tokenizer never sees it."""

    def __init__(self, config):
        super().__init__(config)
        self.probe = nn.Linear(3, 1)
        self.phase = OwnPhase("probe", start=config.start, lr=config.lr)

    def forward(self, reconstruction, batch, progress):
        return {}

    def weights(self, progress):
        return {}

    def hand_on(self, reconstruction, batch, progress):
        return reconstruction.pixels.detach()

    def step(self, network, handed, batch, draws, progress):
        colors = handed.flatten(2).mean(-1)
        error = F.mse_loss(network(colors)[:, 0], colors.mean(-1))
        return {"loss": error, "brightness": error}


class ForgottenConfig(LossConfig):
    kind: Literal["forgotten"] = "forgotten"


@register("loss", ForgottenConfig)
class Forgotten(Loss):
    """Has a network that nothing trains."""

    def __init__(self, config):
        super().__init__(config)
        self.network = nn.Linear(3, 3)

    def forward(self, reconstruction, batch, progress):
        return {}

    def weights(self, progress):
        return {}
