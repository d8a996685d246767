"""The loop: one for every task, on one process or many.

It decides when things happen: steps, validation, images, checkpoints, the end. Position, draws and
schedules are functions of the step, so a resumed run cannot differ from one that never stopped.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn

from vistok.config import ConfigError, to_yaml
from vistok.config.registry import build, entry_of
from vistok.core.draws import Draws
from vistok.core.records import Batch
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.core.verbosity import note
from vistok.data.batch import to_device
from vistok.data.loading.shared_memory import told_as_shortage
from vistok.data.loading.stream import Stream
from vistok.data.mixed_order import order_of
from vistok.data.overlap import overlap
from vistok.layers.dropout import keyed, layers_of
from vistok.storage.files import write_text
from vistok.storage.lock import FolderLock
from vistok.storage.trained import RUN_CONFIG
from vistok.train.checkpoint import files
from vistok.train.checkpoint.history import header, told
from vistok.train.checkpoint.resume import Checkpointer, binding
from vistok.train.config import TrainConfig
from vistok.train.cost.room import check_room
from vistok.train.cost.throughput import Throughput, make_throughput
from vistok.train.dataloader import Loader, check_shared_memory, make_loader, stream_positions
from vistok.train.export import Export
from vistok.train.jobs.base import Context, Job
from vistok.train.launch import make_accelerator, one_line_losses, slow_precision
from vistok.train.monitoring.logger import Logger
from vistok.train.monitoring.validation import Validation
from vistok.train.nonfinite import NonFiniteCheck
from vistok.train.optim.averaging import has_batch_norm
from vistok.train.parallel.main_process import by_main
from vistok.train.parallel.wrap import Parallel, wants_sharding
from vistok.train.run_folder import run_folder
from vistok.train.signals import StopRequest
from vistok.train.state import make_state
from vistok.train.step import PhaseGradients, TrainingStep
from vistok.train.tasks.base import Modules, Task


def train(config: TrainConfig) -> Path:
    """Run a training config to its end; the run's folder.

    InUseError names another process that has this folder.
    """
    accelerator = make_accelerator(config)
    folder = Path(config.folder)
    is_job = issubclass(entry_of(config.task).part, Job)
    with run_folder(accelerator, folder, is_job) as lock:
        set_seed(config.seed)
        data = None if config.data is None else build(config.data)
        # A job opens what it reads by itself: a training split may decode every image at once.
        train_set = None if data is None or is_job else data.open("train")
        if not is_job:
            sharded = wants_sharding(config.sharding, accelerator.num_processes)
            shares = accelerator.num_processes if sharded else 1
            check_room(config.task, train_set, accelerator.device, shares)
        work: Task | Job = build(config.task, train_set)
        if isinstance(work, Job):
            work.run(Context(config, data, accelerator, folder))
            if accelerator.is_main_process:
                write_text(folder / RUN_CONFIG, to_yaml(config))
        elif data is None:
            raise ConfigError(
                "data: missing; this task trains on data, expected e.g. {kind: photos}"
            )
        else:
            Loop(config, work, train_set, data.open("val"), accelerator, folder, lock).run()
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
        lock: FolderLock | None = None,
    ) -> None:
        self.config, self.task, self.accelerator, self.folder = config, task, accelerator, folder
        self.device = accelerator.device
        self.train_set, self.val_set = train_set, val_set
        # As the run finds its files, not as they are later; it may look at every one of them.
        self.data_record = by_main(accelerator, train_set.record)
        self.sharded = wants_sharding(config.sharding, accelerator.num_processes)
        self.state = make_state(config, task, accelerator, self.sharded)
        # What a forward pass itself moves; looked up once, since a step has no time to search.
        self._statistics = [
            buffer
            for module in self.state.modules.values()
            if has_batch_norm(module)
            for buffer in module.buffers()
        ]
        parallel = Parallel(accelerator, self.sharded, config.compile)
        self.training_step = TrainingStep(config, task, self.state.modules, parallel)
        self.order = order_of(train_set, config.batch_size, config.seed)
        self.nonfinite = NonFiniteCheck(
            self.state, accelerator, folder, config.max_skipped, lambda text: self.logger.warn(text)
        )
        place = folder / "checkpoints"
        self.checkpointer = Checkpointer(config, accelerator, place, self._binding, lock)
        self.stop = StopRequest()
        self.validation = Validation(
            config,
            task,
            val_set,
            accelerator,
            folder,
            training=train_set.sets[0] if train_set.sets else train_set,
            stopping=lambda: self.stop.number is not None,
            tell=lambda text: self.logger.warn(text),
            note=self.nonfinite.note,
        )
        self.export = Export(config, task, folder, self.data_record)
        self.logger: Logger | None = None
        self.loader: Loader | None = None

    def _binding(self) -> dict[str, Any]:
        record = {"data (count)": self.data_record.get("count"), **self.task.record()}
        return binding(self.config, self.data_record.get("manifest"), record)

    # -- running --------------------------------------------------------------------------------

    def run(self) -> None:
        path = self._begin()
        state, main = self.state, self.accelerator.is_main_process
        if by_main(self.accelerator, lambda: self._is_complete(path)):
            if main:
                note(f"finished {state.step} steps; the model is in {self.export.target}")
            return
        if main:
            # Only now: a run that is refused must not change what an earlier one left.
            past = header(self.checkpointer.history)
            write_text(self.folder / RUN_CONFIG, past + to_yaml(self.config))
            aside = []
            if self.config.resume != "auto":
                aside = files.set_aside(self.checkpointer.folder, after=state.step)
            if aside:
                note(f"set aside checkpoints of later steps: {', '.join(map(str, aside))}")
        throughput = Throughput()
        if main and state.step < self.config.steps:
            world = self.accelerator.num_processes
            throughput = make_throughput(self.config, self.train_set, self.device, world)
        facts = self.task.facts()
        self.logger = Logger(
            self.accelerator, self.folder, self.config, state.step, throughput, facts.unit
        )
        if throughput.reason:
            self.logger.say(f"no tflops in the log: a step cannot be counted ({throughput.reason})")
        if slow := slow_precision(self.config, self.device):
            self.logger.warn(slow)
        if self.accelerator.is_main_process and (seen := overlap(self.train_set, self.val_set)):
            self.logger.warn(seen)
        if state.step == 0:
            for name, value in facts.lines.items():
                self.logger.say(f"{name}: {value}")
        try:
            with self.stop.listening(), one_line_losses(self.accelerator, self._where):
                with told_as_shortage():
                    self._train(path)
        finally:
            self.logger.close()

    def _is_complete(self, path: Path | None) -> bool:
        """True if there is nothing left to do: no step, no validation, no export."""
        step = self.state.step
        done = path is not None and step >= self.config.steps
        return done and not self.validation.missed(step) and self.export.is_current(path)

    def _train(self, path: Path | None) -> None:
        """All that is left to do, from the checkpoint `path` on."""
        if path is not None and self.checkpointer.holds(path):
            # A kill after a save may have cut off what follows it.
            if by_main(self.accelerator, lambda: self.validation.missed(self.state.step)):
                self._look(path)
        if self.state.step < self.config.steps:
            path = self._steps()
        for line in self.logger.links():
            self.logger.say(line)
        self._export(path)
        if self.stop.number is not None:  # so that what was to follow does not
            self.logger.warn(f"stopped by signal {self.stop.number}; the run is complete")
            sys.exit(128 + self.stop.number)

    def _steps(self) -> Path:
        """The steps that are left; the checkpoint of the last one."""
        check_shared_memory(self.config, self.train_set, self.val_set, self.accelerator)
        self.loader = loader = self._loader()
        path = None
        for batch in loader:
            self.task.check(batch)
            path = self._train_step(to_device(batch, self.device), loader)
            if self.stop.agreed() and self.state.step < self.config.steps:
                if not (self._every(self.config.save_every) or self.nonfinite.in_a_row):
                    self._save()  # else it was just saved, or must not be
                step = self.state.step
                self.logger.warn(f"stopped by signal {self.stop.number} after step {step}")
                sys.exit(128 + self.stop.number)
        return path

    def _loader(self, steps: int | None = None, workers: int | None = None) -> Loader:
        given = (self.config, self.train_set, self.order, self.accelerator, self.folder, self.state)
        return make_loader(*given, steps, workers)

    def _every(self, interval: int) -> bool:
        return interval > 0 and self.state.step % interval == 0

    def _where(self) -> str:
        saved = files.complete(self.folder / "checkpoints")
        resume = f"{saved[0]} is complete" if saved else "there is no checkpoint yet"
        return f"at step {self.state.step + 1}; {resume}: start the same command again"

    def _train_step(self, batch: Batch, loader: Loader) -> Path | None:
        """One step, and what is due after it; the checkpoint, if one was."""
        config, task, state = self.config, self.task, self.state
        progress = Progress(state.step, config.steps, self.order.epoch(state.step))
        rng = Rng(config.seed, "step", state.step)
        self._seed_torch(rng)
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
                self.logger.warn(f"step {state.step + 1}: {alarm['text']}")
        state.step += 1
        self.logger.tick(
            state.step,
            self.order.epoch(state.step),
            loader.wait,
            facts | {"skipped_steps": state.skipped},
        )
        saved = self._save_if_due()
        self._look(saved)
        return saved

    def _move(self, found: PhaseGradients, progress: Progress) -> dict[str, float]:
        """Move the modules of a phase, and log it; its learning rate."""
        name = found.module
        prefix = "" if name == self.task.phases[0].module else f"{name}_"
        for scalars, _ in found.micro_batches:
            self.logger.add({prefix + n if n == "loss" else n: v for n, v in scalars.items()})
        norms = found.norms.items()
        self.logger.add({f"{name}_grad_norm{part and '/' + part}": norm for part, norm in norms})
        return {f"{prefix}lr": self.training_step.move(found, progress)}

    def _save_if_due(self) -> Path | None:
        """The checkpoint of this step, where one is due."""
        config, state = self.config, self.state
        last = state.step == config.steps
        if not (last or self._every(config.save_every)):
            return None
        if self.nonfinite.in_a_row and not last:
            # The step before the first bad one may be what broke the weights.
            self.logger.warn(f"step {state.step}: no checkpoint, since the last step was skipped")
            return None
        return self._save()

    # -- beginning ------------------------------------------------------------------------------

    def _begin(self) -> Path | None:
        """From a checkpoint, which is returned, or from scratch; modules are whole until their
        state is in them."""
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
                changed = [c for c in self.checkpointer.history if c["after_step"] == state.step]
                note(f"resumed from {path}{told(changed)}")
        return path

    def _prepare(self) -> None:
        """Show the task the first batch, before anything is wrapped."""
        rng = Rng(self.config.seed, "step", 0)
        self._seed_torch(rng)
        # Streams cut their lanes by the number of workers, so there it must be the real one.
        workers = self.config.workers if isinstance(self.train_set, Stream) else 0
        batch = next(iter(self._loader(1, workers)))
        dropout = layers_of(self.task.modules)
        with keyed(dropout, Rng(self.config.seed, "dropout"), batch.index, self.device):
            self.task.prepare(to_device(batch, self.device), rng)

    def _seed_torch(self, rng: Rng) -> None:
        """Parts of users may draw from torch's own generator: keyed by step and rank, such draws
        need no state either."""
        torch.manual_seed(rng.child(f"torch/{self.accelerator.process_index}").torch_seed())

    # -- looking --------------------------------------------------------------------------------

    def evaluated(self) -> dict[str, nn.Module]:
        """Bare modules, averaged where there is an average; every rank must ask."""
        averages = {**self.state.twins, **self.state.averages}.items()
        return {**self.state.modules, **{name: average.module for name, average in averages}}

    def _look(self, saved: Path | None) -> None:
        """Validation and image grids of this step, where they are due and no signal came.

        Args:
            saved: the checkpoint of this step, if there is one.
        """
        config, last = self.config, self.state.step == self.config.steps
        validate = last or self._every(config.validate_every)
        draw = last or self._every(config.grid_every)
        if not (validate or draw) or self.stop.agreed():
            return
        self.logger.pause()
        modules = self.evaluated()
        if validate:
            self._validate(saved, modules)
        if draw:
            self.validation.grids(self.state.step, modules, self.logger.image)
        self.logger.resume()

    def _validate(self, saved: Path | None, modules: Modules) -> None:
        step, monitor = self.state.step, self.task.monitor
        metrics = self.validation.metrics(step, modules)
        if self.stop.agreed() or not metrics:
            return
        score = metrics.get(monitor.metric, math.nan) * (1 if monitor.higher_is_better else -1)
        if saved is not None and math.isfinite(score):
            self.checkpointer.judge(saved, score)
        self.logger.write(step, metrics, "val")
        values = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        self.logger.say(f"step {step}: {values}")
        self.validation.compare(step)

    # -- keeping --------------------------------------------------------------------------------

    def _save(self) -> Path:
        """A checkpoint, written by the main process; a failure ends all of them."""
        self.logger.pause()
        self.state.stream = stream_positions(self.loader)
        path = self.checkpointer.save(self.state)
        self.logger.resume()
        return path

    def _export(self, path: Path) -> None:
        """Write the finished model and the summary."""
        self.nonfinite.require_a_step()
        modules = self.evaluated()
        write = lambda: self.export.write(self.state.step, path, modules)
        self.logger.say(by_main(self.accelerator, write))
