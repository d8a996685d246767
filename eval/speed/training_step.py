"""A whole training step of a config, to be timed: forward, backward, clipping, optimizers.

Without the loop's own work around it: asking whether all gradients are finite, averages, logging. A
config needs no run and no data: images, or clips, are noise, which costs the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vistok import pretrained
from vistok.config import ConfigError, read_yaml, shipped, validate
from vistok.config.registry import build
from vistok.core.errors import InputError
from vistok.core.records import Batch
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.eval.provenance import provenance
from vistok.eval.results.rows import Reference, Row
from vistok.eval.speed.clock import Clock, flops, largest_products
from vistok.runtime import distributed
from vistok.runtime.precision import has_bf16
from vistok.train import step as train_step
from vistok.train.config import TrainConfig
from vistok.train.parallel.alone import Alone
from vistok.train.tasks.base import Phase

NO_BF16 = "this device has no bf16 instructions; fp32 can be measured"
_SEARCHED = 1000  # steps from the last among which a plain one is looked for


class TrainingStep:
    """Call it for one optimizer step, compiled if the config says so; `plain()` never is."""

    def __init__(self, config: Any, batch: Batch, source: str) -> None:
        """`config` is a tree of TrainConfig, read from `source`."""
        config = self.config = validate(TrainConfig, config, source)
        data = None if config.data is None else build(config.data).open("train")
        task, self.batch, self.device = build(config.task, data), batch, batch.pixels.device
        self.task = task
        for module in [*task.modules.values(), *task.buffers.helpers]:
            module.to(self.device).train()
        self.bare = dict(task.modules)
        whole = config.model_copy(update={"accumulate": 1})  # the batch is what fits at once
        parallel = Alone(self.device, config.precision, config.compile)
        self.step = train_step.TrainingStep(whole, task, self.bare, parallel)
        self.step.prepare()
        self.wrapped = dict(task.modules)
        # One of the last: every loss is switched on.
        self.progress = Progress(plain_step(config.steps, task.phases), config.steps)
        self.rng = Rng(config.seed, "step", self.progress.step)
        if task.wants_data:
            task.prepare(batch, self.rng)
        self.draws = task.draw(batch.index, config.seed, self.progress).to(self.device)

    @property
    def precision(self) -> str:
        return self.config.precision

    @property
    def dtype(self) -> torch.dtype:
        """Type of the step's matrix products."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    @property
    def imitated(self) -> bool:
        """True for bf16 on a device that has no instructions for it: it would take hours."""
        return self.precision == "bf16" and not has_bf16(self.device)

    def __call__(self) -> None:
        self._step(self.wrapped)

    def plain(self) -> None:
        """The step without compilation: compiled products cannot be counted."""
        self._step(self.bare)

    def _step(self, modules: dict) -> None:
        self.task.modules.update(modules)
        phases = self.step.gradients(self.batch, self.draws, self.progress)
        for found in phases:
            self.step.move(found, self.progress)
        for found in phases:
            self.step.clear(found)
        self.task.after_step(self.rng, self.progress)


@dataclass(frozen=True)
class ConfigStep:
    """A config file, of which only the training step is measured."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.stem

    def rows(
        self, clock: Clock, batches: Sequence[int], precisions: Sequence[str]
    ) -> Iterator[Row]:
        """Rows of every precision and batch size; without any given, of the config's own."""
        tree = read_yaml(self.path)
        if tree.get("task", {}).get("kind") != "tokenizer":
            raise ConfigError(f"{self.path}: task.kind is not tokenizer; only those see pixels")
        for precision in precisions or (tree.get("precision", "fp32"),):
            for size in batches or (tree.get("batch_size", 32),):
                # On noise: a config is timed before its data are there.
                changed = {**tree, "precision": precision, "data": None}
                yield from self._measure(clock, changed, size)

    def _measure(self, clock: Clock, tree: dict, size: int) -> Iterator[Row]:
        sides = validate(TrainConfig, tree, str(self.path)).task.tokenizer.shape.sides
        pixels = torch.rand(size, 3, *sides, generator=torch.Generator().manual_seed(0))
        batch = Batch(torch.arange(size), pixels.to(clock.device))
        if clock.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(clock.device)
        step = TrainingStep(tree, batch, str(self.path))
        common = {
            "run": self.name,
            "reference": Reference(name="noise", split="none", manifest="", count=size),
            "count": size,
            "size": sides,
            "precision": step.precision,
            **provenance(),
        }
        unit = sample_unit(pixels)
        if step.imitated:
            yield Row(metric=f"train-{unit}s/s", value=None, note=NO_BF16, **common)
            return
        count, shapes = flops(step.plain), largest_products(step.plain)
        timing = clock.time(step, step.dtype, count, shapes)
        each = f"{count / size / 1e9:.1f} GFLOP per {unit}"
        yield Row(metric=f"train-{unit}s/s", value=size / timing.seconds, note=each, **common)
        yield Row(metric="train-FLOP/s", value=count / timing.seconds, **common)
        limit = f"of {timing.limit / 1e9:.0f} GFLOP/s for {clock.side}-wide matrix products"
        yield Row(metric="train-share", value=timing.share, note=limit, **common)
        own = ", ".join("x".join(map(str, shape)) for shape in shapes)
        if own:
            note = f"of its own largest products: {own}"
            yield Row(metric="train-own-share", value=timing.own_share, note=note, **common)
        if clock.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(clock.device) / 2**30
            yield Row(metric="train-peak-GB", value=peak, **common)


def sample_unit(pixels: torch.Tensor) -> str:
    """The noun of a sample of pixels [B, 3, *sides]: "image" or "clip"."""
    return "clip" if pixels.ndim == 5 else "image"


def plain_step(last: int, phases: Sequence[Phase]) -> int:
    """The last step at which all phases are due and nothing happens that is done every 10, 50 or
    500 steps, such as the gradient of each term of the loss; `last` if there is none."""
    steps = range(last, max(0, last - _SEARCHED), -1)
    plain = (n for n in steps if n % 5 and all(phase.due(n) for phase in phases))
    return next(plain, last)


def config_file(name: str | Path) -> Path | None:
    """The config file that an argument means: a .yaml, or the name of a shipped config; None = a
    run."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return path
    known = (*pretrained.EMBEDDED, *pretrained.releases())
    if path.exists() or str(name) in known:
        return None
    try:
        return shipped.find(name)
    except ConfigError:
        return None


def alone() -> None:
    """ValueError in a process group: shares are those of one process."""
    if distributed.world_size() > 1:
        raise InputError("speed measures one process; start it without a launcher")
