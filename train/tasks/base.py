"""What a task is to the loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from accelerate import Accelerator
from torch import Tensor, nn

from vistok.dice import Draws, Progress, Rng
from vistok.records import Batch


@dataclass(frozen=True)
class Phase:
    """One optimiser's turn in a step."""

    module: str  # name in Task.modules: whose parameters move
    every: int = 1  # steps between its turns
    start: int = 0  # first step
    lr: float | None = None  # instead of the config's
    lr_factors: Mapping[str, float] = field(default_factory=dict)


class Task:
    """What the loop trains: named modules, their phases, and one step's loss.

    The loop wraps the modules (several processes, compilation) and puts the wrapped ones back into
    `modules`; a task calls those for training and its own bare ones for everything else. A task
    without phases writes files in `run` instead.
    """

    modules: dict[str, nn.Module]
    phases: tuple[Phase, ...] = ()
    averaged: tuple[str, ...] = ()
    """Modules of which the loop keeps an exponential moving average."""
    helpers: tuple[nn.Module, ...] = ()
    """Modules that only have to be on the device: losses with frozen networks."""

    def draw(self, index: Tensor, seed: int, progress: Progress) -> Draws:
        """The dice of one step for this process's samples."""
        return Draws()

    def prepare(self, batch: Batch, rng: Rng) -> None:
        """Look at the first batch before the first step (data-dependent codebooks)."""

    def step(self, phase: Phase, batch: Batch, draws: Draws, progress: Progress) -> dict:
        """{"loss": scalar to minimise, name: scalar to log, ...} of one micro-batch."""
        raise NotImplementedError

    def after_step(self, rng: Rng, progress: Progress) -> dict[str, float]:
        """Running statistics once a step, after all phases; what to log of them."""
        return {}

    def validate(
        self, batches: Iterable[Batch], modules: Mapping[str, nn.Module]
    ) -> dict[str, float]:
        """Metrics over validation batches, reduced over processes."""
        return {}

    def pictures(self, batch: Batch, modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
        """Named images [3, H, W] in 0..1 to look at."""
        return {}

    def export(self, folder: Path, modules: Mapping[str, nn.Module]) -> None:
        """Write the finished model for users, from averaged modules where there are some."""

    def summary(self) -> dict[str, object]:
        """Facts worth printing before training: parameters, tokens, bits."""
        return {}

    def run(self, config, data, accelerator: Accelerator, folder: Path) -> None:
        """The work of a task without phases.

        Args:
            config: the TrainConfig. data: the data part, or None. folder: where to write.
        """
        raise NotImplementedError
