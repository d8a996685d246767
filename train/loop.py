"""THE loop: one for every task, on one process or many.

A step takes the process's share of the global batch, samples all draws for it at once, splits it
into micro-batches, and lets each phase of the task have its turn: all gradients first, then, if all
of them are finite, all moves. Position, draws and schedules are functions of the step, so a resumed
run cannot differ from one that never stopped.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn

from vistok.config import ConfigError, to_yaml
from vistok.config.registry import build
from vistok.core.records import Batch
from vistok.core.rng import Rng
from vistok.core.schedules import Progress, warmup_cosine
from vistok.data.batch import of_each_class, to_device
from vistok.data.loading.loader import EvalLoader
from vistok.data.loading.stream import Stream
from vistok.data.order import Order
from vistok.storage.files import write_text
from vistok.storage.hub import WEIGHTS
from vistok.train import checkpoint, resume
from vistok.train.averaging import Average, has_batch_norm
from vistok.train.config import TrainConfig
from vistok.train.feed import Loader, make_loader
from vistok.train.gradients import norms_and_clip
from vistok.train.guard import Guard, Turn
from vistok.train.launch import make_accelerator, one_line_losses, slow_precision
from vistok.train.meter import Meter, make_meter
from vistok.train.optim import make_optimizers, with_lr
from vistok.train.parallel import Parallel, share_batch_norm, wants_sharding
from vistok.train.signals import StopRequest
from vistok.train.summary import finish
from vistok.train.tasks.base import Phase, Task
from vistok.train.watch import Watch


def train(config: TrainConfig) -> Path:
    """Run a training config to its end; the run's folder."""
    accelerator = make_accelerator(config)
    folder = Path(config.folder)
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
    set_seed(config.seed)
    data = None if config.data is None else build(config.data)
    train_set = None if data is None else data.open("train")
    task: Task = build(config.task, train_set)
    if not task.phases:
        task.run(config, data, accelerator, folder)
        if accelerator.is_main_process:
            write_text(folder / "config.yaml", to_yaml(config))
        return folder
    if data is None:
        raise ConfigError("data: missing; this task trains on data, expected e.g. {kind: photos}")
    Loop(config, task, train_set, data.open("val"), accelerator, folder).run()
    return folder


class Loop:
    def __init__(
        self,
        config: TrainConfig,
        task: Task,
        train_set,
        val_set,
        accelerator: Accelerator,
        folder: Path,
    ) -> None:
        self.config, self.task, self.accelerator, self.folder = config, task, accelerator, folder
        self.device = accelerator.device
        self.bare = {name: module.to(self.device) for name, module in task.modules.items()}
        for helper in (*task.helpers, *task.kept.values()):
            helper.to(self.device)
        for name, module in self.bare.items():
            share_batch_norm(name, module, accelerator)
        # What a forward pass itself moves; looked up once, since a step has no time to search.
        self._statistics = [
            buffer
            for module in self.bare.values()
            if has_batch_norm(module)
            for buffer in module.buffers()
        ]
        self.sharded = wants_sharding(config.sharding, accelerator.num_processes)
        self.parallel = Parallel(accelerator, self.sharded, config.compile)
        self.averages: dict[str, Average] = {}
        if config.ema is not None:
            self.averages = {
                name: Average(self.bare[name], config.ema, name) for name in task.averaged
            }
        # A sharded module cannot be evaluated as it is: ranks look at different numbers of samples.
        first = task.phases[0].module
        self.twins: dict[str, Average] = {}
        if self.sharded and first not in self.averages:
            self.twins = {first: Average(self.bare[first], 0.0, first)}
        self.optimizers: dict[str, list[torch.optim.Optimizer]] = {}
        self.order = Order(len(train_set), config.batch_size, config.seed)
        self.train_set, self.val_set = train_set, val_set
        self.guard = Guard(accelerator, folder, config.max_skipped, self._say)
        self.stop = StopRequest()
        self.step, self.score = 0, None
        self.loader: Loader | None = None
        self.stream: dict | None = None  # lanes and their positions, where a stream goes on

    @cached_property
    def data_record(self) -> dict:
        """Of the training data; once a run, since it may look at every file."""
        return self.train_set.record()

    # -- running --------------------------------------------------------------------------------

    def run(self) -> None:
        self._begin()
        if self.accelerator.is_main_process:
            # Only now: a run that is refused must not change what an earlier one left.
            write_text(self.folder / "config.yaml", to_yaml(self.config))
            if self.config.resume != "auto":
                checkpoint.set_aside(self.folder / "checkpoints", after=self.step)
        if self.step >= self.config.steps:
            self._export()
            return
        meter = Meter()
        if self.accelerator.is_main_process:
            world = self.accelerator.num_processes
            meter = make_meter(self.config, self.train_set, self.device, world)
        self.watch = Watch(self.accelerator, self.folder, self.config, self.step, meter)
        if meter.reason:
            self.watch.say(f"no tflops in the log: a step cannot be counted ({meter.reason})")
        if slow := slow_precision(self.config, self.device):
            self.watch.say(slow)
        if self.step == 0:
            for name, value in self.task.summary().items():
                self.watch.say(f"{name}: {value}")
        try:
            with self.stop.listening(), one_line_losses(self.accelerator, self._where):
                self._train()
        finally:
            self.watch.close()

    def _train(self) -> None:
        self.loader = loader = make_loader(self, self.config.steps, self.config.workers)
        for batch in loader:
            self._train_step(to_device(batch, self.device), loader)
            if self.stop.agreed() and self.step < self.config.steps:
                if not (_every(self.step, self.config.save_every) or self.guard.in_a_row):
                    self._save()  # else it was just saved, or must not be
                self.watch.say(f"stopped by signal {self.stop.number} after step {self.step}")
                sys.exit(128 + self.stop.number)
        self._export()
        if self.stop.number is not None:  # so that what was to follow does not
            self.watch.say(f"stopped by signal {self.stop.number}; the run is complete")
            sys.exit(128 + self.stop.number)

    def _say(self, text: str) -> None:
        self.watch.say(text)  # there is none yet when the guard is made

    def _where(self) -> str:
        saved = checkpoint.complete(self.folder / "checkpoints")
        go_on = f"{saved[0]} is complete" if saved else "there is no checkpoint yet"
        return f"at step {self.step + 1}; {go_on}: start the same command again"

    def _train_step(self, batch: Batch, loader: Loader) -> None:
        config, task = self.config, self.task
        progress = Progress(self.step, config.steps, self.order.epoch(self.step))
        rng = Rng(config.seed, "step", self.step)
        self._seed_dropout(rng)
        draws = task.draw(batch.index, config.seed, progress).to(self.device)
        for module in self.bare.values():
            module.train()
        before = [buffer.clone() for buffer in self._statistics]
        due = [p for p in task.phases if progress.step >= p.start and not progress.step % p.every]
        turns = [self._turn(phase, batch, draws, progress) for phase in due]
        facts: dict[str, float] = {}
        if self.guard.passes(self.step + 1, turns):
            for turn in turns:
                facts |= self._move(turn, progress)
            self.guard.took()
            self.watch.add(task.after_step(rng, progress))
            for average in (*self.averages.values(), *self.twins.values()):
                average.update()
        else:
            task.forget()
            for buffer, value in zip(self._statistics, before, strict=True):
                buffer.copy_(value)
        for turn in turns:
            for optimizer in self.optimizers[turn.module]:
                optimizer.zero_grad(set_to_none=True)
        for alarm in task.alarms(progress):
            self.guard.note({"step": self.step + 1, **alarm})
            self.watch.say(f"step {self.step + 1}: {alarm['text']}")
        self.step += 1
        self.watch.tick(
            self.step,
            self.order.epoch(self.step),
            loader.wait,
            facts | {"skipped_steps": self.guard.skipped},
        )
        self._look_and_save()

    def _look_and_save(self) -> None:
        """Validation, images and the checkpoint of this step, where they are due."""
        config, last = self.config, self.step == self.config.steps
        self.score = None
        if last or _every(self.step, config.validate_every):
            self._validate()
        if last or _every(self.step, config.grid_every):
            self._pictures()
        if _every(self.step, config.save_every) and self.guard.in_a_row and not last:
            # The step before the first bad one may be what broke the weights.
            self.watch.say(f"step {self.step}: no checkpoint, since the last step was skipped")
        elif last or _every(self.step, config.save_every):
            self._save()

    def _turn(self, phase: Phase, batch: Batch, draws, progress: Progress) -> Turn:
        """One phase's share of a step: micro-batches, their gradients, clipping; nothing moves."""
        config, name = self.config, phase.module
        wrapped = self.task.modules[name]
        size = len(batch.index) // config.accumulate
        seen = []
        for i in range(config.accumulate):
            part = batch
            if config.accumulate > 1:
                part = batch.select(slice(i * size, (i + 1) * size))
            with self.parallel.micro_batch(wrapped, last=i == config.accumulate - 1):
                with self.accelerator.autocast():
                    sampled = draws.select(slice(i * size, (i + 1) * size))
                    scalars = self.task.step(phase, part, sampled, progress)
                self.accelerator.backward(scalars["loss"] / config.accumulate)
            # Without their graphs, which would live on until everything has moved.
            seen.append(({n: value.detach() for n, value in scalars.items()}, part.index))
        self.parallel.finish(wrapped)
        return Turn(name, seen, norms_and_clip(self.bare[name], config.clip))

    def _move(self, turn: Turn, progress: Progress) -> dict[str, float]:
        """The optimizers of one phase; its rate."""
        config, name = self.config, turn.module
        prefix = "" if name == self.task.phases[0].module else f"{name}_"
        for scalars, _ in turn.micro_batches:
            self.watch.add({prefix + n if n == "loss" else n: v for n, v in scalars.items()})
        norms = turn.norms.items()
        self.watch.add({f"{name}_grad_norm{part and '/' + part}": norm for part, norm in norms})
        # Set, not scheduled: a rate is a function of the step alone, so it needs no state.
        rate = warmup_cosine(progress.step, config.steps, config.warmup, config.final_lr)
        for optimizer in self.optimizers[name]:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * rate
            optimizer.step()
        return {f"{prefix}lr": self.optimizers[name][0].param_groups[0]["lr"]}

    # -- beginning ------------------------------------------------------------------------------

    def _begin(self) -> None:
        """From a checkpoint or from scratch; modules are whole until their state is in them."""
        path = resume.found(self)
        state = None if path is None else resume.restore_modules(self, path)
        if state is None and self.task.wants_data:
            self._prepare()
        for phase in self.task.phases:
            bare, first = self.bare[phase.module], phase is self.task.phases[0]
            self.task.modules[phase.module] = self.parallel.wrap(
                bare, shard=first, whole=self.task.whole(phase.module)
            )
            self.optimizers[phase.module] = make_optimizers(
                with_lr(self.config.optimizer, phase.lr), bare, phase.lr_factors
            )
        if self.sharded:
            (self.averages | self.twins)[self.task.phases[0].module].shard()
        if state is not None:
            resume.restore_optimizers(self, state, path)
            if self.accelerator.is_main_process:
                print(f"resumed from {path}{resume.changed_precision(self, state)}")

    def _prepare(self) -> None:
        """Show the task the first batch, before anything is wrapped."""
        rng = Rng(self.config.seed, "step", 0)
        self._seed_dropout(rng)
        # Streams cut their lanes by the number of workers, so there it must be the real one.
        workers = self.config.workers if isinstance(self.train_set, Stream) else 0
        batch = next(iter(make_loader(self, 1, workers)))
        self.task.prepare(to_device(batch, self.device), rng)

    def _seed_dropout(self, rng: Rng) -> None:
        """Network dropout is the only user of torch's own generator: keyed by step and rank, it
        needs no state either."""
        torch.manual_seed(rng.child(f"dropout/{self.accelerator.process_index}").torch_seed())

    # -- looking --------------------------------------------------------------------------------

    def evaluated(self) -> dict[str, nn.Module]:
        """Bare modules, averaged where there is an average; every rank must ask."""
        averages = (self.twins | self.averages).items()
        return self.bare | {name: average.module for name, average in averages}

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
        self.watch.pause()
        with self.accelerator.autocast():
            metrics = self.task.validate(self._batches(), self.evaluated())
        if self.stop.agreed():
            metrics = {}
        if metrics:
            self.watch.write(self.step, metrics, "val")
            self.watch.say(
                f"step {self.step}: " + ", ".join(f"{k} {v:.4g}" for k, v in metrics.items())
            )
            name, sign = self.task.judged_by
            self.score = sign * metrics[name] if name in metrics else None
        self.watch.resume()

    def _pictures(self) -> None:
        self.watch.pause()
        modules = self.evaluated()
        if self.accelerator.is_main_process:
            first = next(iter(EvalLoader(self.val_set, 64, limit=64)))
            batch = to_device(of_each_class(first, 8), self.device)
            for name, image in self.task.pictures(batch, modules).items():
                self.watch.picture(self.step, name, image)
        self.watch.resume()

    def _export(self) -> None:
        """Write the finished model, unless an earlier run of the same steps already did."""
        target = self.folder / "model"
        modules = self.evaluated()
        if self.accelerator.is_main_process:
            if not (target / WEIGHTS).is_file() or hasattr(self, "watch"):
                draft = self.folder / ".writing_model"
                shutil.rmtree(draft, ignore_errors=True)
                self.task.export(draft, modules)
                shutil.rmtree(target, ignore_errors=True)
                draft.rename(target)
            if hasattr(self, "watch"):
                record = self.task.record()
                self.watch.say(finish(self.config, self.folder, self.data_record, task=record))
            else:
                print(f"finished {self.step} steps; the model is in {target}")
        self.accelerator.wait_for_everyone()

    # -- keeping --------------------------------------------------------------------------------

    def _save(self) -> None:
        """A checkpoint, written by the main process; a failure ends all of them."""
        self.watch.pause()
        resume.save(self)
        self.watch.resume()


def _every(step: int, interval: int) -> bool:
    return interval > 0 and step % interval == 0
