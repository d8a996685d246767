"""THE loop: one for every task, on one process or many.

A step takes the process's share of the global batch, throws all dice for it at once, splits it
into micro-batches, and lets each phase of the task have its turn. Position, dice and schedules are
functions of the step, so a resumed run cannot differ from one that never stopped.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list, set_seed
from torch import Tensor, nn

from train import checkpoint, resume
from train.averaging import Average, has_batch_norm
from train.config import TrainConfig
from train.optim import clip_and_norm, make_optimizers, with_lr
from train.tasks.base import Phase, Task
from train.watch import Watch
from vistok.config import ConfigError, to_yaml
from vistok.data.loader import EvalLoader, TrainLoader, to_device
from vistok.data.order import Order
from vistok.data.select import of_each_class, select
from vistok.dice import Progress, Rng, warmup_cosine
from vistok.hub import WEIGHTS
from vistok.records import Batch
from vistok.registry import build


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
            (folder / "config.yaml").write_text(to_yaml(config))
        return folder
    if data is None:
        raise ConfigError("data: missing; this task trains on data, expected e.g. {kind: photos}")
    Loop(config, task, train_set, data.open("val"), accelerator, folder).run()
    return folder


def make_accelerator(config: TrainConfig) -> Accelerator:
    """One Accelerator for this run; the launcher's world size must be the one it sees."""
    on_gpu = torch.cuda.is_available()
    accelerator = Accelerator(
        cpu=not on_gpu,
        mixed_precision="bf16" if config.precision == "bf16" else "no",
        log_with=list(config.trackers) or None,
        project_dir=config.folder,
        # Our buffers are equal on all ranks by construction; broadcasting them costs time.
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != launched:
        raise ConfigError(
            f"the launcher started {launched} processes but {accelerator.num_processes} found each "
            "other; on CPUs launch with: torchrun --nproc_per_node N -m train CONFIG"
        )
    share = accelerator.num_processes * config.accumulate
    if config.batch_size % share:
        raise ConfigError(
            f"batch_size={config.batch_size} does not split over {accelerator.num_processes} "
            f"processes x accumulate={config.accumulate}; use a multiple of {share}"
        )
    return accelerator


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
        for helper in task.helpers:
            helper.to(self.device)
        for name, module in self.bare.items():
            self._share_batch_norm(name, module)
        self.averages: dict[str, Average] = {}
        if config.ema is not None:
            self.averages = {
                name: Average(self.bare[name], config.ema, name) for name in task.averaged
            }
        self.optimizers: dict[str, list[torch.optim.Optimizer]] = {}
        for phase in task.phases:
            task.modules[phase.module] = self._wrap(self.bare[phase.module])
            self.optimizers[phase.module] = make_optimizers(
                with_lr(config.optimizer, phase.lr), self.bare[phase.module], phase.lr_factors
            )
        self.order = Order(len(train_set), config.batch_size, config.seed)
        self.train_set, self.val_set = train_set, val_set
        self.step = 0
        self._signal: int | None = None

    # -- running --------------------------------------------------------------------------------

    def run(self) -> None:
        self._resume()
        if self.accelerator.is_main_process:
            # Only now: a run that is refused must not change what an earlier one left.
            (self.folder / "config.yaml").write_text(to_yaml(self.config))
            if self.config.resume != "auto":
                checkpoint.set_aside(self.folder / "checkpoints", after=self.step)
        if self.step >= self.config.steps:
            self._export()
            return
        self.watch = Watch(self.accelerator, self.folder, self.config, self.step)
        if self.step == 0:
            for name, value in self.task.summary().items():
                self.watch.say(f"{name}: {value}")
        handlers = self._catch_signals()
        loader = TrainLoader(
            self.train_set,
            self.order,
            start_step=self.step,
            steps=self.config.steps,
            workers=self.config.workers,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
            folder=self.folder,
            max_bad_share=self.config.max_bad_share,
            pin_memory=self.device.type == "cuda",
        )
        try:
            for batch in loader:
                self._train_step(to_device(batch, self.device), loader)
                if self._stop_asked() and self.step < self.config.steps:
                    if not _every(self.step, self.config.save_every):  # else it was just saved
                        self._save()
                    self.watch.say(f"stopped by signal {self._signal} after step {self.step}")
                    sys.exit(128 + self._signal)
            self._export()
        finally:
            self.watch.close()
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _train_step(self, batch: Batch, loader: TrainLoader) -> None:
        config, task = self.config, self.task
        progress = Progress(self.step, config.steps, self.order.epoch(self.step))
        rng = Rng(config.seed, "step", self.step)
        # Network dropout is the only user of torch's own generator: keyed by step and rank, it
        # needs no state either.
        torch.manual_seed(rng.child(f"dropout/{self.accelerator.process_index}").torch_seed())
        if self.step == 0:
            task.prepare(batch, rng)
        draws = task.draw(batch.index, config.seed, progress).to(self.device)
        for module in self.bare.values():
            module.train()
        facts: dict[str, float] = {}
        for phase in task.phases:
            if progress.step < phase.start or progress.step % phase.every:
                continue
            facts |= self._turn(phase, batch, draws, progress)
        events = task.after_step(rng, progress)
        for average in self.averages.values():
            average.update()
        self.step += 1
        self.watch.add(events)
        self.watch.tick(self.step, self.order.epoch(self.step), loader.wait, facts)
        last = self.step == config.steps
        if last or _every(self.step, config.validate_every):
            self._validate()
        if last or _every(self.step, config.grid_every):
            self._pictures()
        if last or _every(self.step, config.save_every):
            self._save()

    def _turn(self, phase: Phase, batch: Batch, draws, progress: Progress) -> dict[str, Tensor]:
        """One phase's share of a step: micro-batches, clipping, the optimiser's move."""
        config, name = self.config, phase.module
        wrapped, optimizers = self.task.modules[name], self.optimizers[name]
        size = len(batch.index) // config.accumulate
        for i in range(config.accumulate):
            part = batch
            if config.accumulate > 1:
                part = select(batch, torch.arange(i * size, (i + 1) * size))
            last = i == config.accumulate - 1
            wait = nullcontext() if last else self.accelerator.no_sync(wrapped)
            with wait:
                with self.accelerator.autocast():
                    thrown = draws.rows(i * size, (i + 1) * size)
                    scalars = self.task.step(phase, part, thrown, progress)
                self.accelerator.backward(scalars["loss"] / config.accumulate)
            prefix = "" if name == self.task.phases[0].module else f"{name}_"
            self.watch.add({prefix + n if n == "loss" else n: v for n, v in scalars.items()})
        norm = clip_and_norm(self.bare[name].parameters(), config.clip)
        self.watch.add({f"{name}_grad_norm": norm})
        # Set, not scheduled: a rate is a function of the step alone, so it needs no state.
        rate = warmup_cosine(progress.step, config.steps, config.warmup, config.final_lr)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return {f"{prefix}lr": optimizers[0].param_groups[0]["lr"]}

    def _share_batch_norm(self, name: str, module: nn.Module) -> None:
        """Batch norm sees the micro-batch of all processes, or is refused."""
        if self.accelerator.num_processes == 1 or not has_batch_norm(module):
            return
        if self.device.type != "cuda":
            raise ConfigError(
                f"{name} has batch norm, which several processes can share on GPUs only; "
                "use one process, or another norm"
            )
        nn.SyncBatchNorm.convert_sync_batchnorm(module)  # replaces the layers inside

    def _wrap(self, module: nn.Module) -> nn.Module:
        if self.config.compile:
            module = torch.compile(module)
        return (
            self.accelerator.prepare_model(module, evaluation_mode=False)
            if self.accelerator.num_processes > 1
            else module
        )

    # -- looking --------------------------------------------------------------------------------

    def evaluated(self) -> dict[str, nn.Module]:
        """Bare modules, averaged where there is an average."""
        return self.bare | {name: average.module for name, average in self.averages.items()}

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

    def _validate(self) -> None:
        self.watch.pause()
        with self.accelerator.autocast():
            metrics = self.task.validate(self._batches(), self.evaluated())
        if metrics:
            self.watch.write(self.step, metrics, "val")
            self.watch.say(
                f"step {self.step}: " + ", ".join(f"{k} {v:.4g}" for k, v in metrics.items())
            )
        self.watch.resume()

    def _pictures(self) -> None:
        self.watch.pause()
        if self.accelerator.is_main_process:
            first = next(iter(EvalLoader(self.val_set, 64, limit=64)))
            batch = to_device(of_each_class(first, 8), self.device)
            for name, image in self.task.pictures(batch, self.evaluated()).items():
                self.watch.picture(self.step, name, image)
        self.watch.resume()

    def _export(self) -> None:
        """Write the finished model, unless an earlier run of the same steps already did."""
        target = self.folder / "model"
        if self.accelerator.is_main_process:
            if not (target / WEIGHTS).is_file() or hasattr(self, "watch"):
                draft = self.folder / ".writing_model"
                shutil.rmtree(draft, ignore_errors=True)
                self.task.export(draft, self.evaluated())
                shutil.rmtree(target, ignore_errors=True)
                draft.rename(target)
            print(f"finished {self.step} steps; the model is in {target}")
        self.accelerator.wait_for_everyone()

    # -- keeping --------------------------------------------------------------------------------

    def _save(self) -> None:
        self.watch.pause()
        state = resume.collect(self)
        if self.accelerator.is_main_process:
            checkpoint.save(self.folder / "checkpoints", state, self.config.keep_last)
        self.accelerator.wait_for_everyone()
        self.watch.resume()

    def _resume(self) -> None:
        """Go on from a checkpoint; the main process decides from which, for all of them."""
        found: list[Path | None] = [None]
        if self.accelerator.is_main_process:
            found = [checkpoint.find(self.folder / "checkpoints", self.config.resume)]
        path = broadcast_object_list(found)[0]
        if path is None:
            return
        if not path.is_dir():
            raise ConfigError(
                f"resume: {path} is not visible to process {self.accelerator.process_index}; "
                "put `out` on a disk that all machines share"
            )
        resume.restore(self, path)
        if self.accelerator.is_main_process:
            print(f"resumed from {path}")

    # -- stopping -------------------------------------------------------------------------------

    def _catch_signals(self) -> dict[int, object]:
        """Turn SIGTERM and SIGINT into a checkpoint and an exit with 143 or 130."""

        def note(number: int, frame: object) -> None:
            if self._signal is not None:
                raise KeyboardInterrupt  # asked twice: do not wait for the step
            self._signal = number

        return {n: signal.signal(n, note) for n in (signal.SIGTERM, signal.SIGINT)}

    def _stop_asked(self) -> bool:
        """Whether any rank was asked to stop; all ranks agree on the step."""
        if self.accelerator.num_processes == 1:
            return self._signal is not None
        asked = torch.tensor(float(self._signal or 0), device=self.device)
        highest = self.accelerator.gather(asked[None]).max()
        self._signal = int(highest) or None
        return self._signal is not None


def _every(step: int, interval: int) -> bool:
    return interval > 0 and step % interval == 0
