"""Base class of tasks, and the records by which the loop, the plan and the logger know one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vistok.config import ConfigError
from vistok.config.contract import base_of, required
from vistok.core.draws import Draws
from vistok.core.records import Batch, Condition
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.data.base import Dataset, mismatch
from vistok.data.base import Facts as DataFacts
from vistok.data.loading.stream import Stream
from vistok.tokens import Tokens, TokenSpec
from vistok.train.monitoring.grids import Grid

Modules = Mapping[str, nn.Module]


@dataclass(frozen=True)
class Phase:
    """One set of optimizers in a training step; every phase looks at the weights from before it."""

    module: str
    """Name in Task.modules of the module whose parameters move."""
    beside: tuple[str, ...] = ()
    """Names of modules that move with it: networks of losses. They are never sharded."""
    every: int = 1
    """Steps between two of its updates."""
    start: int = 0
    """First step at which it is due."""
    lr: float | None = None
    """Peak learning rate; None = that of the config."""
    lr_factors: Mapping[str, float] = field(default_factory=dict)
    """Factor of the learning rate by the names of parts of `module`, and of modules beside it."""

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of all modules that move in this phase."""
        return (self.module, *self.beside)

    def due(self, step: int) -> bool:
        """True if the phase is part of this step."""
        return step >= self.start and not step % self.every


@dataclass(frozen=True)
class Outcome:
    """The result of one phase on one micro-batch."""

    scalars: Mapping[str, Tensor]
    """"loss" is minimized, all others are logged."""
    handed: Mapping[str, Any] = field(default_factory=dict)
    """Records for later phases of the same step, by their module's name; tensors detached."""

    @property
    def loss(self) -> Tensor:
        return self.scalars["loss"]


@dataclass(frozen=True)
class Monitor:
    """Validation metric, images and alarms of a task."""

    metric: str = "loss"
    """The validation metric that tells a better checkpoint."""
    higher_is_better: bool = False
    images: Callable[[Batch, Modules], dict[str, Grid]] | None = None
    """(batch of validation or training data, modules) -> named grids to look at."""
    alarms: Callable[[Progress], list[dict]] | None = None
    """After a step: what the user should know, as {"alarm": kind, "text": one line, facts}."""


@dataclass(frozen=True)
class Buffers:
    """Modules of a task besides those that train."""

    helpers: tuple[nn.Module, ...] = ()
    """Modules that only have to be on the device: losses with frozen networks."""
    saved: Modules = field(default_factory=dict)
    """Modules whose buffers are state of the run itself: they go into checkpoints."""
    share: Callable[[], None] | None = None
    """Called before a checkpoint: makes `saved` the same on all processes."""


@dataclass(frozen=True)
class Facts:
    """Facts about a task that are known before it trains."""

    spec: TokenSpec | None = None
    """The tokens that it makes or reads."""
    sides: tuple[int, ...] | None = None
    """(H, W) of the images that it sees, (T, H, W) of clips; None = it reads tokens."""
    lines: Mapping[str, object] = field(default_factory=dict)
    """Facts that are printed before training: parameters, tokens, bits."""

    @property
    def unit(self) -> str:
        """ "image" or "clip"; "sample" of a task that reads tokens."""
        if self.sides is None:
            return "sample"
        return "clip" if len(self.sides) == 3 else "image"


@base_of("task")
class Task:
    """Base of tasks: named modules, the phases in which they move, and one step's losses.

    The loop wraps the modules (several processes, compilation) and puts the wrapped ones back into
    `modules`; a task calls those in training and its own bare ones everywhere else.
    """

    needs_data: bool = True
    """True if the task cannot be built without its data: they give its shapes."""
    modules: dict[str, nn.Module]
    phases: tuple[Phase, ...]
    ema: tuple[str, ...] = ()
    """Modules of which an exponential moving average is kept."""
    monitor: Monitor = Monitor()
    buffers: Buffers = Buffers()
    run: str = "run"
    """Name of the run, which is set before `export`."""

    @property
    def wants_data(self) -> bool:
        """True if `prepare` must see the first batch."""
        return False

    def prepare(self, batch: Batch, rng: Rng) -> None:
        """Look at the first batch before the first step (codebooks that start from data)."""

    def check(self, batch: Batch) -> None:
        """ConfigError for a batch that the task cannot learn from, as the loader gives it: on the
        CPU, where looking at values stops nothing."""

    def draw(self, index: Tensor, seed: int, progress: Progress) -> Draws:
        """Random draws of one step for this process's samples `index` [B]."""
        return Draws()

    @required
    def step(
        self,
        phase: Phase,
        batch: Batch,
        draws: Draws,
        progress: Progress,
        earlier: Mapping[str, Any],
    ) -> Outcome:
        """One phase on one micro-batch; nothing moves yet.

        Args:
            earlier: what the earlier phases of this step handed on for this micro-batch.
        """
        raise NotImplementedError

    def after_step(self, rng: Rng, progress: Progress) -> dict[str, float | Tensor]:
        """Update running statistics once a step, after all phases moved; scalars to log."""
        return {}

    def forget(self) -> None:
        """The step was skipped: drop what it left for `after_step`."""

    def validate(self, batches: Iterable[Batch], modules: Modules) -> dict[str, float]:
        """Metrics over validation batches, reduced over processes."""
        return {}

    def export(self, folder: Path, modules: Modules) -> None:
        """Write the finished model for users, from averaged modules where there are some."""

    @required
    def example(self, count: int) -> Batch:
        """A batch of `count` samples with the shapes and fields of the data, all zeros."""
        raise NotImplementedError

    def facts(self) -> Facts:
        """Facts that are known before training, without any weights."""
        return Facts()

    def record(self) -> dict[str, str]:
        """Facts that the results depend on besides config and data: hashes of teachers. They stand
        in the run's summary, and a checkpoint with other facts is refused."""
        return {}

    def whole(self, name: str) -> Collection[nn.Parameter]:
        """Parameters of module `name` that must not be sharded: those used outside its forward."""
        return ()


def blank_batch(
    count: int, data: Dataset | Stream | None, sides: tuple[int, ...] | None = None
) -> Batch:
    """A batch of zeros as `data` would give it: pixels of `sides`, else the data's tokens.

    Every position of a cached text counts as text.
    """
    pixels = tokens = label = fps = None
    spec = None if data is None else data.spec
    if sides is not None:
        pixels = torch.zeros(count, 3, *sides)
        fps = torch.ones(count) if len(sides) == 3 else None
    elif spec is not None and spec.vocab:
        shape = (count, spec.length, len(spec.vocab))
        tokens = Tokens(spec, indices=torch.zeros(shape, dtype=Tokens.dtype(spec)))
    elif spec is not None:
        tokens = Tokens(spec, values=torch.zeros(count, spec.length, spec.dim))
    if data is not None and data.classes:
        label = torch.zeros(count, dtype=torch.long)
    features = {} if data is None else data.features
    cached = {name: torch.zeros(count, *shape) for name, shape in features.items()}
    if "text_mask" in cached:
        cached["text_mask"] = torch.ones_like(cached["text_mask"], dtype=torch.bool)
    latents, space = cached.pop("latents", None), cached.pop("space", None)
    prefix = tokens if cached.pop("prefix", None) is not None else None
    return Batch(
        torch.arange(count),
        pixels,
        label=label,
        text=("",) * count,
        fps=fps,
        tokens=tokens,
        prefix=prefix,
        latents=latents,
        space=space,
        condition=Condition(**cached) if cached else None,
    )


def check_sides(data: DataFacts | None, sides: tuple[int, ...], reader: str) -> None:
    """ConfigError unless `data` gives pixels of `sides`, (H, W) or (T, H, W); None passes."""
    problem = None if data is None else mismatch(data, sides, reader)
    if problem is not None:
        raise ConfigError(problem)
