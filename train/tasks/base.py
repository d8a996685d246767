"""What a task is to the loop."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from accelerate import Accelerator
from torch import Tensor, nn

from vistok.config import ConfigError
from vistok.core.draws import Draws
from vistok.core.records import Batch
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.data.base import Dataset
from vistok.data.loading.stream import Stream


def check_pictures(data: Dataset | Stream | None, task: str) -> None:
    """ConfigError unless the samples are images; None is not looked at."""
    if data is not None and data.frames is not None:
        raise ConfigError(
            f"data: gives clips of {data.frames} frames, but this {task} takes images; use a "
            "kind of images (folder, parquet, webdataset), or frames=null where that is allowed"
        )
    if data is not None and data.spec is not None:
        raise ConfigError(
            f"data: gives cached tokens, but this {task} takes images; use a kind of images "
            "(folder, parquet, webdataset)"
        )


@dataclass(frozen=True)
class Phase:
    """One optimizer's turn in a step; every phase looks at weights as they were before the step."""

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
    kept: Mapping[str, nn.Module] = {}
    """Modules whose buffers are state of the run itself: they go into checkpoints."""
    judged_by: tuple[str, int] = ("loss", -1)
    """The validation metric that tells a better checkpoint, and 1 if higher is better, else -1."""

    @property
    def wants_data(self) -> bool:
        """Whether `prepare` has to see the first batch."""
        return False

    def whole(self, name: str) -> Collection[nn.Parameter]:
        """Parameters of module `name` that must not be sharded: those used outside its forward."""
        return ()

    def draw(self, index: Tensor, seed: int, progress: Progress) -> Draws:
        """Draws of one step for this process's samples."""
        return Draws()

    def prepare(self, batch: Batch, rng: Rng) -> None:
        """Look at the first batch before the first step (data-dependent codebooks)."""

    def step(self, phase: Phase, batch: Batch, draws: Draws, progress: Progress) -> dict:
        """{"loss": scalar to minimize, name: scalar to log, ...} of one micro-batch."""
        raise NotImplementedError

    def after_step(self, rng: Rng, progress: Progress) -> dict[str, float | Tensor]:
        """Running statistics once a step, after all phases; what to log of them."""
        return {}

    def forget(self) -> None:
        """The step was skipped: drop what it left for the phases and statistics after it."""

    def alarms(self, progress: Progress) -> list[dict]:
        """What the user should know after this step: {"alarm": kind, "text": one line, facts}."""
        return []

    def share(self) -> None:
        """Before a checkpoint: make `kept` the same on all ranks."""

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

    def record(self) -> dict[str, str]:
        """Facts that the run's results hang on, besides its config and data: they are written into
        its summary, and a checkpoint of other facts is refused."""
        return {}

    def run(self, config, data, accelerator: Accelerator, folder: Path) -> None:
        """The work of a task without phases.

        Args:
            config: the TrainConfig. data: the data part, or None. folder: where to write.
        """
        raise NotImplementedError
