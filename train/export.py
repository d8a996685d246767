"""The finished model of a run and its summary, bound to the checkpoint that they are made from.

A kill between a checkpoint and the export leaves the model of an earlier one: the next start sees
it by the record beside the weights, and exports again.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vistok.storage.hub import WEIGHTS
from vistok.storage.imported import Imported
from vistok.storage.sealed import SealError
from vistok.storage.trained import RUN_CONFIG, TrainingRecord
from vistok.storage.weights import sha256
from vistok.train.checkpoint import files
from vistok.train.config import TrainConfig
from vistok.train.monitoring.summary import finish, read_summary
from vistok.train.tasks.base import Modules, Task


class Export:
    """Writes `model/` and `summary.json` of a run; the main process alone may.

    Args:
        folder: of the run. record: of the training data.
    """

    def __init__(
        self, config: TrainConfig, task: Task, folder: Path, record: Mapping[str, Any]
    ) -> None:
        self.config, self.task, self.folder, self.record = config, task, folder, record
        self.target = folder / "model"

    def is_current(self, checkpoint: Path) -> bool:
        """True if model, summary and config.yaml all belong to a checkpoint."""
        wanted = files.identity(checkpoint)
        try:
            found = TrainingRecord.read(self.target)
        except SealError:
            return False
        paths = (self.target / WEIGHTS, self.folder / RUN_CONFIG)
        if found is None or not all(path.is_file() for path in paths):
            return False
        hashes = (wanted, *map(sha256, paths))
        return (found.checkpoint, found.weights, found.config) == hashes and read_summary(
            self.folder
        ).get("checkpoint") == wanted

    def write(self, step: int, checkpoint: Path, modules: Modules) -> str:
        """Write model and summary, in place of earlier ones; the summary as text.

        Args:
            checkpoint: of `step`, which holds what `modules` were made from.
        """
        draft, old = self.folder / ".writing_model", self.folder / ".removing_model"
        for left in (draft, old):  # by a kill
            shutil.rmtree(left, ignore_errors=True)
        self.task.run = self.config.name
        for module in modules.values():
            if isinstance(module, Imported):
                module.notes = self._notes(step)
        self.task.export(draft, modules)
        identity = files.identity(checkpoint)
        TrainingRecord.of(self.folder, draft, step, identity).write(draft)
        if self.target.is_symlink():
            self.target.unlink()
        elif self.target.exists():
            self.target.rename(old)
        draft.rename(self.target)
        shutil.rmtree(old, ignore_errors=True)
        return finish(
            self.config,
            self.folder,
            self.record,
            task={**self.task.record(), "checkpoint": identity},
            unit=self.task.facts().unit,
        )

    def _notes(self, step: int) -> dict[str, str]:
        """What the model card says of the training."""
        source = Path(str(self.record.get("source", ""))).name  # whoever gets it has no such path
        data = ": ".join(filter(None, (str(self.record.get("kind", "")), source)))
        if isinstance(self.record.get("count"), int):
            data += f" ({self.record['count']:,} samples)"
        notes = {"run": str(self.config.name), "steps": f"{step:,}"}
        return {**notes, "data": data} if data else notes
