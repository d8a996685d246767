"""The loop: one for every task, on one process or many.

It decides when things happen: steps, validation, images, checkpoints, the end. Position, draws and
schedules are functions of the step, so a resumed run cannot differ from one that never stopped.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed
from torch import nn

from vistok.config import ConfigError, to_yaml
from vistok.config.registry import build, entry_of
from vistok.core.draws import Draws
from vistok.core.records import Batch
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.data.batch import of_each_class, to_device
from vistok.data.loading.loader import EvalLoader
from vistok.data.loading.shared_memory import told_as_shortage
from vistok.data.loading.stream import Stream
from vistok.data.order import Order
from vistok.data.overlap import overlap
from vistok.storage.files import write_text
from vistok.storage.hub import WEIGHTS
from vistok.train.checkpoint import files
from vistok.train.checkpoint.resume import Checkpointer, binding
from vistok.train.config import TrainConfig
from vistok.train.cost.room import check_room
from vistok.train.cost.throughput import Throughput, make_throughput
from vistok.train.dataloader import (
    Loader,
    check_shared_memory,
    make_loader,
    stream_positions,
)
from vistok.train.jobs.base import Context, Job
from vistok.train.launch import make_accelerator, one_line_losses, slow_precision
from vistok.train.monitoring.logger import Logger
from vistok.train.monitoring.summary import finish
from vistok.train.nonfinite import NonFiniteCheck
from vistok.train.optim.averaging import Average, has_batch_norm
from vistok.train.parallel.wrap import Parallel, share_batch_norm, wants_sharding
from vistok.train.signals import StopRequest
from vistok.train.state import RunState
from vistok.train.step import PhaseGradients, TrainingStep
from vistok.train.tasks.base import Task


def train(config: TrainConfig) -> Path:
    """Run a training config to its end; the run's folder."""
    accelerator = make_accelerator(config)
    folder = Path(config.folder)
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
    set_seed(config.seed)
    data = None if config.data is None else build(config.data)
    # A job opens what it reads by itself: a training split may decode every image at once.
    is_job = issubclass(entry_of(config.task).part, Job)
    train_set = None if data is None or is_job else data.open("train")
    if not is_job:
        sharded = wants_sharding(config.sharding, accelerator.num_processes)
        shares = accelerator.num_processes if sharded else 1
        check_room(config.task, train_set, accelerator.device, shares)
    work: Task | Job = build(config.task, train_set)
    if isinstance(work, Job):
        work.run(Context(config, data, accelerator, folder))
        if accelerator.is_main_process:
            write_text(folder / "config.yaml", to_yaml(config))
        return folder
    if data is None:
        raise ConfigError("data: missing; this task trains on data, expected e.g. {kind: photos}")
    Loop(config, work, train_set, data.open("val"), accelerator, folder).run()
    return folder


class Loop:
    def __init__(
        self,
        config: TrainConfig,
        task: Task,
        train_set: Any,
        val_set: Any,
        accelerator: Accelerator,
        folder: Path,
    ) -> None:
        self.config, self.task, self.accelerator, self.folder = config, task, accelerator, folder
        self.device = accelerator.device
        self.train_set, self.val_set = train_set, val_set
        self.data_record = self._data_record()  # as the run finds its files, not as they are later
        self.sharded = wants_sharding(config.sharding, accelerator.num_processes)
        self.state = self._state()
        # What a forward pass itself moves; looked up once, since a step has no time to search.
        self._statistics = [
            buffer
            for module in self.state.modules.values()
            if has_batch_norm(module)
            for buffer in module.buffers()
        ]
        parallel = Parallel(accelerator, self.sharded, config.compile)
        self.training_step = TrainingStep(config, task, self.state.modules, parallel)
        self.order = Order(len(train_set), config.batch_size, config.seed)
        self.nonfinite = NonFiniteCheck(
            self.state, accelerator, folder, config.max_skipped, lambda text: self.logger.say(text)
        )
        self.checkpointer = Checkpointer(config, accelerator, folder / "checkpoints", self._binding)
        self.stop = StopRequest()
        self.logger: Logger | None = None
        self.loader: Loader | None = None

    def _state(self) -> RunState:
        """The task's modules on the device, and their averages."""
        config, task = self.config, self.task
        modules = {name: module.to(self.device) for name, module in task.modules.items()}
        for module in (*task.buffers.helpers, *task.buffers.saved.values()):
            module.to(self.device)
        for name, module in modules.items():
            share_batch_norm(name, module, self.accelerator)
        averages: dict[str, Average] = {}
        if config.ema is not None:
            averages = {name: Average(modules[name], config.ema, name) for name in task.ema}
        # A sharded module cannot be evaluated as it is: ranks look at different numbers of samples.
        first = task.phases[0].module
        twins: dict[str, Average] = {}
        if self.sharded and first not in averages:
            twins = {first: Average(modules[first], 0.0, first)}
        return RunState(modules, averages, twins, task.buffers)

    def _data_record(self) -> dict[str, Any]:
        """The record of the training data, made by the main process: it may look at every file."""
        record = [self.train_set.record() if self.accelerator.is_main_process else None]
        return broadcast_object_list(record)[0]

    def _binding(self) -> dict[str, Any]:
        record = {"data (count)": self.data_record.get("count"), **self.task.record()}
        return binding(self.config, self.data_record.get("manifest"), record)

    # -- running --------------------------------------------------------------------------------

    def run(self) -> None:
        self._begin()
        state = self.state
        if self.accelerator.is_main_process:
            # Only now: a run that is refused must not change what an earlier one left.
            write_text(self.folder / "config.yaml", to_yaml(self.config))
            if self.config.resume != "auto":
                files.set_aside(self.folder / "checkpoints", after=state.step)
        if state.step >= self.config.steps:
            self._export()
            return
        throughput = Throughput()
        if self.accelerator.is_main_process:
            world = self.accelerator.num_processes
            throughput = make_throughput(self.config, self.train_set, self.device, world)
        facts = self.task.facts()
        self.logger = Logger(
            self.accelerator, self.folder, self.config, state.step, throughput, facts.unit
        )
        if throughput.reason:
            self.logger.say(f"no tflops in the log: a step cannot be counted ({throughput.reason})")
        if slow := slow_precision(self.config, self.device):
            self.logger.say(slow)
        if self.accelerator.is_main_process and (seen := overlap(self.train_set, self.val_set)):
            self.logger.say(seen)
        if state.step == 0:
            for name, value in facts.lines.items():
                self.logger.say(f"{name}: {value}")
        try:
            with self.stop.listening(), one_line_losses(self.accelerator, self._where):
                with told_as_shortage():
                    self._train()
        finally:
            self.logger.close()

    def _train(self) -> None:
        check_shared_memory(self.config, self.train_set, self.val_set, self.accelerator)
        self.loader = loader = self._loader()
        for batch in loader:
            self._train_step(to_device(batch, self.device), loader)
            if self.stop.agreed() and self.state.step < self.config.steps:
                if not (self._every(self.config.save_every) or self.nonfinite.in_a_row):
                    self._save()  # else it was just saved, or must not be
                step = self.state.step
                self.logger.say(f"stopped by signal {self.stop.number} after step {step}")
                sys.exit(128 + self.stop.number)
        self._export()
        if self.stop.number is not None:  # so that what was to follow does not
            self.logger.say(f"stopped by signal {self.stop.number}; the run is complete")
            sys.exit(128 + self.stop.number)

    def _loader(self, steps: int | None = None, workers: int | None = None) -> Loader:
        given = (self.config, self.train_set, self.order, self.accelerator, self.folder, self.state)
        return make_loader(*given, steps, workers)

    def _every(self, interval: int) -> bool:
        return interval > 0 and self.state.step % interval == 0

    def _where(self) -> str:
        saved = files.complete(self.folder / "checkpoints")
        resume = f"{saved[0]} is complete" if saved else "there is no checkpoint yet"
        return f"at step {self.state.step + 1}; {resume}: start the same command again"

    def _train_step(self, batch: Batch, loader: Loader) -> None:
        config, task, state = self.config, self.task, self.state
        progress = Progress(state.step, config.steps, self.order.epoch(state.step))
        rng = Rng(config.seed, "step", state.step)
        self._seed_dropout(rng)
        draws: Draws = task.draw(batch.index, config.seed, progress).to(self.device)
        before = [buffer.clone() for buffer in self._statistics]
        phases = self.training_step.gradients(batch, draws, progress)
        facts: dict[str, float] = {}
        if self.nonfinite.passes(state.step + 1, phases):
            for found in phases:
                facts |= self._move(found, progress)
            self.logger.add(task.after_step(rng, progress))
            for average in (*state.averages.values(), *state.twins.values()):
                average.update()
        else:
            task.forget()
            for buffer, value in zip(self._statistics, before, strict=True):
                buffer.copy_(value)
        for found in phases:
            self.training_step.clear(found)
        if task.monitor.alarms is not None:
            for alarm in task.monitor.alarms(progress):
                self.nonfinite.note({"step": state.step + 1, **alarm})
                self.logger.say(f"step {state.step + 1}: {alarm['text']}")
        state.step += 1
        self.logger.tick(
            state.step,
            self.order.epoch(state.step),
            loader.wait,
            facts | {"skipped_steps": state.skipped},
        )
        self._look_and_save()

    def _move(self, found: PhaseGradients, progress: Progress) -> dict[str, float]:
        """Move the modules of a phase, and log it; its learning rate."""
        name = found.module
        prefix = "" if name == self.task.phases[0].module else f"{name}_"
        for scalars, _ in found.micro_batches:
            self.logger.add({prefix + n if n == "loss" else n: v for n, v in scalars.items()})
        norms = found.norms.items()
        self.logger.add({f"{name}_grad_norm{part and '/' + part}": norm for part, norm in norms})
        return {f"{prefix}lr": self.training_step.move(found, progress)}

    def _look_and_save(self) -> None:
        """Validation, images and the checkpoint of this step, where they are due."""
        config, state = self.config, self.state
        last = state.step == config.steps
        state.score = None
        if last or self._every(config.validate_every):
            self._validate()
        if last or self._every(config.grid_every):
            self._images()
        if self._every(config.save_every) and self.nonfinite.in_a_row and not last:
            # The step before the first bad one may be what broke the weights.
            self.logger.say(f"step {state.step}: no checkpoint, since the last step was skipped")
        elif last or self._every(config.save_every):
            self._save()

    # -- beginning ------------------------------------------------------------------------------

    def _begin(self) -> None:
        """From a checkpoint or from scratch; modules are whole until their state is in them."""
        state = self.state
        path = self.checkpointer.find()
        snapshot = None if path is None else self.checkpointer.restore_modules(state, path)
        if snapshot is None and self.task.wants_data:
            self._prepare()
        self.training_step.prepare()
        state.optimizers = self.training_step.optimizers
        if self.sharded:
            (state.averages | state.twins)[self.task.phases[0].module].shard()
        if snapshot is not None:
            self.checkpointer.restore_optimizers(state, snapshot, path)
            if self.accelerator.is_main_process:
                print(f"resumed from {path}{self.checkpointer.changed_precision(snapshot)}")

    def _prepare(self) -> None:
        """Show the task the first batch, before anything is wrapped."""
        rng = Rng(self.config.seed, "step", 0)
        self._seed_dropout(rng)
        # Streams cut their lanes by the number of workers, so there it must be the real one.
        workers = self.config.workers if isinstance(self.train_set, Stream) else 0
        batch = next(iter(self._loader(1, workers)))
        self.task.prepare(to_device(batch, self.device), rng)

    def _seed_dropout(self, rng: Rng) -> None:
        """Network dropout is the only user of torch's own generator: keyed by step and rank, it
        needs no state either."""
        torch.manual_seed(rng.child(f"dropout/{self.accelerator.process_index}").torch_seed())

    # -- looking --------------------------------------------------------------------------------

    def evaluated(self) -> dict[str, nn.Module]:
        """Bare modules, averaged where there is an average; every rank must ask."""
        averages = {**self.state.twins, **self.state.averages}.items()
        return {**self.state.modules, **{name: average.module for name, average in averages}}

    def _batches(self) -> Iterator[Batch]:
        loader = EvalLoader(
            self.val_set,
            self.config.validate_batch,
            workers=self.config.workers,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
            limit=self.config.validate_limit,
        )
        for batch in loader:
            yield to_device(batch, self.device)
            if self.stop.number is not None:
                return  # the grace time is short; what was counted so far is thrown away

    def _validate(self) -> None:
        self.logger.pause()
        with self.accelerator.autocast():
            metrics = self.task.validate(self._batches(), self.evaluated())
        if self.stop.agreed():
            metrics = {}
        if metrics:
            step, monitor = self.state.step, self.task.monitor
            self.logger.write(step, metrics, "val")
            values = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
            self.logger.say(f"step {step}: {values}")
            if monitor.metric in metrics:
                sign = 1 if monitor.higher_is_better else -1
                self.state.score = sign * metrics[monitor.metric]
        self.logger.resume()

    def _images(self) -> None:
        """Grids of images, where the task draws some."""
        self.logger.pause()
        modules, draw = self.evaluated(), self.task.monitor.images
        if self.accelerator.is_main_process and draw is not None:
            first = next(iter(EvalLoader(self.val_set, 64, limit=64)))
            batch = to_device(of_each_class(first, 8), self.device)
            for name, image in draw(batch, modules).items():
                self.logger.image(self.state.step, name, image)
        self.logger.resume()

    # -- keeping --------------------------------------------------------------------------------

    def _save(self) -> None:
        """A checkpoint, written by the main process; a failure ends all of them."""
        self.logger.pause()
        self.state.stream = stream_positions(self.loader)
        self.checkpointer.save(self.state)
        self.logger.resume()

    def _export(self) -> None:
        """Write the finished model, unless an earlier run of the same steps already did."""
        target = self.folder / "model"
        modules = self.evaluated()
        if self.accelerator.is_main_process:
            if not (target / WEIGHTS).is_file() or self.logger is not None:
                draft = self.folder / ".writing_model"
                shutil.rmtree(draft, ignore_errors=True)
                self.task.export(draft, modules)
                shutil.rmtree(target, ignore_errors=True)
                draft.rename(target)
            if self.logger is None:
                print(f"finished {self.state.step} steps; the model is in {target}")
            else:
                self.logger.say(
                    finish(
                        self.config,
                        self.folder,
                        self.data_record,
                        task=self.task.record(),
                        unit=self.task.facts().unit,
                    )
                )
        self.accelerator.wait_for_everyone()
