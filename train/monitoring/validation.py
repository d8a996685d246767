"""Validation and image grids during training: neither may cost a step, or the run.

They come after the checkpoint of their step. A sample that cannot be read is left out, named and
counted; any other failure is said, noted in alarms.jsonl, and training goes on. A look that a kill
cut off is made up for when the run resumes.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from vistok.config.errors import explain
from vistok.core.records import Batch
from vistok.data.batch import of_each_class, to_device
from vistok.data.loading.loader import EvalLoader
from vistok.data.loading.quarantine import Quarantine
from vistok.runtime import distributed
from vistok.train.config import TrainConfig
from vistok.train.monitoring import overfitting
from vistok.train.monitoring.grids import Grid, labeled
from vistok.train.monitoring.summary import GRID_FAILED, VALIDATION_FAILED, read_metrics
from vistok.train.tasks.base import Task

_GRID_SAMPLES = 64  # among which a grid finds samples of different classes

Modules = Mapping[str, nn.Module]


class Validation:
    """Metrics and grids of a run's validation data.

    Args:
        data: the validation split. training: the training split, of which grids show some samples.
        folder: of the run, where quarantine.jsonl names samples that cannot be used.
        stopping: True once this process was asked to stop: validation is then cut short.
        tell: tells the user something. note: adds a fact to alarms.jsonl. Both of the main process.
    """

    def __init__(
        self,
        config: TrainConfig,
        task: Task,
        data: Any,
        accelerator: Accelerator,
        folder: Path,
        *,
        training: Any = None,
        stopping: Callable[[], bool],
        tell: Callable[[str], None],
        note: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self.config, self.task, self.data, self.accelerator = config, task, data, accelerator
        self.folder, self.stopping, self.tell, self._note = folder, stopping, tell, note
        self.training = training
        self._bad: list[tuple[str, str]] = []
        self._seen = 0
        self._error: Exception | None = None

    def missed(self, step: int) -> bool:
        """True if validation was due at this step, and neither its row nor its failure is there."""
        config = self.config
        due = step == config.steps or (config.validate_every and step % config.validate_every == 0)
        if not step or not due or type(self.task).validate is Task.validate:
            return False
        rows = read_metrics(self.folder / "metrics.jsonl")
        alarms = read_metrics(self.folder / "alarms.jsonl")
        there = any(row.get("step") == step and row.get("split") == "val" for row in rows)
        failed = any(
            row.get("step") == step and row.get("alarm") == VALIDATION_FAILED for row in alarms
        )
        return not (there or failed)

    def metrics(self, step: int, modules: Modules) -> dict[str, float]:
        """The task's validation metrics, and `left_out`, the samples that could not be used, if
        there were some; {} if it failed. Every process must call it."""
        self._bad, self._seen, self._error = [], 0, None
        found: dict[str, float] = {}
        batches = self._batches()
        first = [batch for batch in [next(batches, None)] if batch is not None]
        # Metrics of no sample at all cannot be computed: whether there is one is asked first.
        if distributed.agree(bool(first)):
            try:
                with self.accelerator.autocast():
                    found = self.task.validate(chain(first, batches), modules)
            except Exception as error:
                if distributed.world_size() > 1:  # the others wait in a reduction: all must end
                    self._fail(step, VALIDATION_FAILED, _reason(error))
                    raise
                self._error = error
        bad = [item for part in gather_object([self._bad]) for item in part]
        seen = sum(gather_object([self._seen]))
        if bad:
            self._name(step, bad, seen)
        if self._has_failed(step, seen):
            return {}
        return found | ({"left_out": float(len(bad))} if bad and found else {})

    def compare(self, step: int) -> None:
        """Warn if the last validation is worse than an earlier one while the loss went on falling;
        to be called once its row is written."""
        monitor = self.task.monitor
        rows = read_metrics(self.folder / "metrics.jsonl")
        text = overfitting.warning(rows, monitor.metric, monitor.higher_is_better)
        if text is not None:
            self._note({"step": step, "alarm": overfitting.ALARM, "text": text})
            self.tell(f"step {step}: {text}")

    def grids(
        self, step: int, modules: Modules, show: Callable[[int, str, Tensor], object]
    ) -> None:
        """Draw images to look at, where the task draws some; the main process does.

        Args:
            show: keeps an image [3, H, W], given step and name.
        """
        draw = self.task.monitor.images
        if not self.accelerator.is_main_process or draw is None:
            return
        try:
            sets = {"held out": (self.data, _GRID_SAMPLES, 8)}
            if self.training is not None:
                sets["seen in training"] = (self.training, 4, 4)
            drawn: dict[str, dict[str, Grid]] = {}
            for title, (data, count, shown) in sets.items():
                loader = EvalLoader(data, count, limit=count, left_out=_ignore)
                for first in islice(loader, 1):
                    batch = to_device(of_each_class(first, shown), self.accelerator.device)
                    for name, grid in draw(batch, modules).items():
                        drawn.setdefault(name, {})[title] = grid
            for name, grids in drawn.items():
                show(step, name, labeled(grids))
        except Exception as error:
            self._fail(step, GRID_FAILED, _reason(error))

    def _batches(self) -> Iterator[Batch]:
        """Batches of this process; what fails in reading them ends them, and is kept."""
        try:
            loader = EvalLoader(
                self.data,
                self.config.validate_batch,
                workers=self.config.workers,
                rank=self.accelerator.process_index,
                world=self.accelerator.num_processes,
                limit=self.config.validate_limit,
                left_out=self._bad.extend,
            )
            for batch in loader:
                self._seen += len(batch.index)
                yield to_device(batch, self.accelerator.device)
                if self.stopping():
                    return  # the grace time is short; what was counted so far is dropped
        except Exception as error:
            self._error = error

    def _has_failed(self, step: int, seen: int) -> bool:
        """True if validation failed in a process; the first reason is told. `seen`: its samples."""
        mine = None if self._error is None else _reason(self._error)
        reasons = [reason for reason in gather_object([mine]) if reason is not None]
        if not seen:
            reasons.append("no sample can be used")
        if reasons:
            self._fail(step, VALIDATION_FAILED, reasons[0])
        return bool(reasons)

    def _fail(self, step: int, what: str, reason: str) -> None:
        text = f"step {step}: {what} ({reason})"
        self._note({"step": step, "alarm": what, "text": text})
        self.tell(f"{text}; training goes on")

    def _name(self, step: int, bad: list[tuple[str, str]], seen: int) -> None:
        """Name samples in the quarantine, and say how many a validation leaves out."""
        if not self.accelerator.is_main_process:
            return
        Quarantine(self.folder, 1.0).leave_out(bad)
        (name, reason), count = bad[0], len(bad)
        more = f" and {count - 1} more" if count > 1 else ""
        self.tell(
            f"step {step}: {count} of {seen + count} validation samples cannot be used and are "
            f"left out: {name}: {reason}{more} (see {self.folder / 'quarantine.jsonl'})"
        )


def _reason(error: Exception) -> str:
    """One line; of a bug the traceback too, on stderr, where it is asked for."""
    if os.environ.get("VISTOK_DEBUG"):
        traceback.print_exception(error)
    return explain(error)[0].removeprefix("error: ")


def _ignore(bad: list[tuple[str, str]]) -> None:
    """Samples of a grid are those of a validation, which names what is left out."""
