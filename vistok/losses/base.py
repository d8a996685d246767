"""Base class of losses: named terms with weights, and the networks that a loss trains.

A loss names its terms without weights, as the papers do, and says how each is weighted at a step.
It may own networks. Those named in `trained` learn together with the tokenizer, in its phase and by
its optimizer: a projector onto a teacher's features (REPA), a prior (LARP). One may learn apart, in
a phase of its own: a discriminator. The task asks every loss for these and knows none by class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from vistok.config import Config
from vistok.config.contract import base_of, required
from vistok.core.draws import PartDraws
from vistok.core.records import Batch, Reconstruction
from vistok.core.rng import Rng
from vistok.core.schedules import Progress


class LossConfig(Config):
    """Fields that all losses have."""

    name: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9_]*$")
    """Prefix of this loss's terms and networks in logs and checkpoints, for lists with two losses
    of one kind: with `name: dino`, `adversarial` becomes `dino_adversarial`."""


@dataclass(frozen=True)
class OwnPhase:
    """The phase in which one network of a loss trains apart from the tokenizer."""

    network: str
    """Attribute of the loss that holds the network."""
    start: int = 0
    """First step at which it trains."""
    every: int = 1
    """Steps between two updates."""
    lr: float | None = None
    """Peak learning rate; None = that of the run."""


@base_of("loss")
class Loss(nn.Module):
    """Base of all losses; `forward` gives the terms, `weights` their factors."""

    wants_teacher: str | None = None
    """The saved or released tokenizer that `teach` must receive before `bind`; None = none."""
    needs_pixels: bool = True
    """True if `forward` reads `Reconstruction.pixels`, which may cost another network to decode."""
    needs_images: bool = True
    """True if `forward` reads images of the batch, which a cached space has not."""
    needs_target_in_space: bool = False
    """True if `forward` reads `Reconstruction.target_in_space`, which may cost a frozen network to
    encode; with decoders that sample it is there in any case."""
    needs_velocity: bool = False
    """True if `forward` reads the velocity that a flow decoder predicts at a sampled time."""
    trained: tuple[str, ...] = ()
    """Attributes that hold networks to train in the tokenizer's phase; they may be made in `bind`.
    Every process holds a whole copy."""
    phase: OwnPhase | None = None
    """The phase of a network that trains apart; None = there is none."""
    balanced: str | None = None
    """The term that is added last, times `balance`; None = no term is balanced."""
    uses_last_layer: bool = False
    """True if `balance` needs gradients at the decoder's last layer."""

    def __init__(self, config: LossConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def borrowed(self) -> tuple[nn.Parameter, ...]:
        """Parameters of the tokenizer that `forward` uses outside of the tokenizer's own forward
        pass (a projection that a teacher's features go through, too): they are never sharded."""
        return ()

    @property
    def key(self) -> str:
        """Name of this loss's random draws: `draws.parts["loss.KEY"]`."""
        return self.config.name or self.config.kind

    @property
    def prefix(self) -> str:
        """Put before the names of terms and networks."""
        return f"{self.config.name}_" if self.config.name else ""

    @required(when="wants_teacher")
    def teach(self, tokenizer: nn.Module, sha256: str) -> None:
        """Take the tokenizer that `wants_teacher` names; it is frozen and never saved."""
        raise NotImplementedError

    def bind(self, tokenizer: nn.Module) -> None:
        """Look at the tokenizer once (its last layer, its widths) before training."""

    def draw(self, index: Tensor, rng: Rng, progress: Progress) -> PartDraws | None:
        """Random draws of one step for samples `index` [B]; None = the loss samples nothing.

        `forward` finds them in `reconstruction.draws.part(f"loss.{key}")`, `step` receives them.
        """
        return None

    @required
    def forward(
        self, reconstruction: Reconstruction, batch: Batch, progress: Progress
    ) -> dict[str, Tensor]:
        """Terms by name: scalars, unweighted; {} where the loss is switched off."""
        raise NotImplementedError

    @required
    def weights(self, progress: Progress) -> dict[str, float]:
        """The factor of each term at this step; a term without a factor is only logged."""
        raise NotImplementedError

    @required(when="balanced")
    def balance(self, others: Tensor, term: Tensor, last_layer: nn.Parameter) -> Tensor:
        """Factor of the balanced term (a scalar without gradient), besides its weight.

        Args:
            others: sum of all weighted terms that are not balanced. last_layer: the decoder's.
        """
        raise NotImplementedError

    @required(when="phase")
    def hand_on(self, reconstruction: Reconstruction, batch: Batch, progress: Progress) -> Any:
        """Record of a micro-batch that the tokenizer has seen, for `step`; tensors detached."""
        raise NotImplementedError

    @required(when="phase")
    def step(
        self,
        network: nn.Module,
        handed: Any,
        batch: Batch,
        draws: PartDraws,
        progress: Progress,
    ) -> dict[str, Tensor]:
        """The phase of its own: {"loss": scalar to minimize, name: scalar to log}.

        Args:
            network: the one that `phase` names, perhaps wrapped for several processes.
            handed: what `hand_on` gave for this micro-batch, before anything moved.
            draws: this loss's own, as `draw` gave them.
        """
        raise NotImplementedError

    def after_step(self) -> None:
        """Move running statistics once a step, after all parameters moved."""

    def forget(self) -> None:
        """The step was skipped: drop what it left for `after_step`."""
