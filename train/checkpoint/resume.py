"""Which parts of a run a checkpoint holds, and how a run resumes from it.

A checkpoint belongs to its config: a key that would change what was trained so far is refused by
name. How long, how often and on how many processes may change; so may the optimizer's settings,
which always come from the config. What changed is kept in the history.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from vistok.config import ConfigError
from vistok.config.errors import NonFiniteError
from vistok.config.overrides import leaves
from vistok.runtime import distributed
from vistok.storage.lock import FolderLock
from vistok.storage.weights import load_strict
from vistok.train.checkpoint import files
from vistok.train.checkpoint.files import CheckpointError, Keep, Snapshot
from vistok.train.checkpoint.finished import check_finished
from vistok.train.checkpoint.history import Change, changes, settings
from vistok.train.checkpoint.optimizer_state import load_optimizer, optimizer_state
from vistok.train.config import TrainConfig
from vistok.train.parallel.main_process import by_main
from vistok.train.state import RunState

# Keys that may differ between a checkpoint and the run that resumes from it.
_FREE = {
    *("name", "out", "plugins", "steps", "accumulate", "optimizer", "warmup", "final_lr", "clip"),
    *("precision", "compile", "sharding", "workers", "max_bad_share", "max_skipped", "log_every"),
    *("validate_every", "validate_batch", "validate_limit", "grid_every", "save_every"),
    *("keep_last", "keep_best", "keep_every", "resume", "trackers", "peak_tflops"),
}
# The same of keys inside parts: what is only logged or validated.
_FREE_INSIDE = (
    *("task.collapse", "task.sampling", "task.term_gradients_every", "task.validate_lengths"),
)
_MANIFEST = "data (manifest)"


class Checkpointer:
    """Saves and restores the state of a run; all processes call it together.

    Args:
        binding: the facts that a checkpoint is tied to, from `binding`; asked when they are needed.
        lock: of the run's folder, which must still be held when a checkpoint is written; None =
            nobody else can have the folder.
    """

    def __init__(
        self,
        config: TrainConfig,
        accelerator: Accelerator,
        folder: Path,
        binding: Callable[[], dict[str, Any]],
        lock: FolderLock | None = None,
    ) -> None:
        self.config, self.accelerator, self.folder = config, accelerator, folder
        self.binding, self.lock = binding, lock
        self.keep = Keep(config.keep_last, config.keep_best, config.keep_every)
        self.history: list[Change] = []
        """Settings that changed over the resumes of the run, oldest first."""

    def find(self) -> Path | None:
        """The checkpoint to resume from; the main process decides, for all of them."""
        path = by_main(self.accelerator, lambda: files.find(self.folder, self.config.resume))
        if path is not None and not path.is_dir():
            raise ConfigError(
                f"resume: {path} is not visible to process {self.accelerator.process_index}; "
                "put `out` on a disk that all machines share"
            )
        return path

    def save(self, state: RunState) -> Path:
        """A checkpoint of this step, written by the main process; a failure ends all of them."""
        snapshot = self.collect(state)

        def write() -> Path:
            if self.lock is not None:
                self.lock.check()
            return files.save(self.folder, snapshot, self.keep)

        return by_main(self.accelerator, write)

    def judge(self, path: Path, score: float) -> None:
        """Give a checkpoint of this run its score, higher is better, and keep the best."""

        def write() -> None:
            files.set_score(path, score)
            files.prune(self.folder, self.keep)

        by_main(self.accelerator, write)

    def holds(self, path: Path) -> bool:
        """True if a checkpoint is this run's own; `resume` may name that of another."""
        return path.resolve().parent == self.folder.resolve()

    def collect(self, state: RunState) -> Snapshot:
        """The state of a run after a step, whole on every rank; every rank must call it.

        NonFiniteError if weights are not finite, RuntimeError if ranks hold different ones.
        """
        held: dict[str, Mapping[str, Tensor]] = {
            n: module.state_dict() for n, module in state.modules.items()
        }
        held |= {f"ema.{n}": average.state_dict() for n, average in state.averages.items()}
        if state.buffers.share is not None:
            state.buffers.share()
        saved = {n: module.state_dict() for n, module in state.buffers.saved.items()}
        held |= {f"task.{n}": tensors for n, tensors in saved.items() if tensors}
        _check_ranks_agree(state.step, held)
        facts: dict[str, Any] = {
            "world": self.accelerator.num_processes,
            "config": self.binding(),
            "optimizers": {},
            "ema_updates": {name: average.updates for name, average in state.averages.items()},
            "skipped": state.skipped,
            "settings": self._settings(),
            "history": self.history,
        }
        if state.stream is not None:
            facts["stream"] = state.stream
        tensors: dict[str, dict[str, Tensor]] = {
            file: {key: distributed.whole(value) for key, value in found.items()}
            for file, found in held.items()
        }
        for file, found in tensors.items():
            for key, value in found.items():
                if value.is_floating_point() and not torch.isfinite(value).all():
                    raise NonFiniteError(
                        f"step {state.step}: {file}/{key} is not finite; the older checkpoints "
                        "are kept: lower optimizer.lr, or use precision=fp32"
                    )
        for name, optimizers in state.optimizers.items():
            moved, names = optimizer_state(optimizers, state.modules[name])
            tensors[f"optimizer.{name}"], facts["optimizers"][name] = moved, names
        return Snapshot(state.step, tensors, facts)

    def restore_modules(self, state: RunState, path: Path) -> Snapshot:
        """Put a checkpoint's weights, averages and counters into a run whose modules are whole."""
        snapshot = files.load(path)
        _same(snapshot.facts.get("config", {}), self.binding(), path)
        now = self._settings()
        before = snapshot.facts.get("settings", now)
        check_finished(self.config, snapshot.step, before, now)
        changed = changes(snapshot.step, before, now)
        self.history = [*snapshot.facts.get("history", []), *changed]
        modules = {**state.modules, **{f"task.{n}": m for n, m in state.buffers.saved.items()}}
        for name, module in modules.items():
            if name in state.modules or module.state_dict():
                load_strict(module, _file(snapshot, name, path), path / f"{name}.safetensors")
        for name, average in state.averages.items():
            file = path / f"ema.{name}.safetensors"
            load_strict(average.module, _file(snapshot, f"ema.{name}", path), file)
            average.updates = snapshot.facts["ema_updates"][name]
        for twin in state.twins.values():
            twin.copy()
        state.step, state.stream = snapshot.step, snapshot.facts.get("stream")
        state.skipped = snapshot.facts["skipped"]
        return snapshot

    def restore_optimizers(self, state: RunState, snapshot: Snapshot, path: Path) -> None:
        """Put a checkpoint's optimizer state into a run whose modules are wrapped, or sharded."""
        for name, optimizers in state.optimizers.items():
            moved = _file(snapshot, f"optimizer.{name}", path)
            names = snapshot.facts["optimizers"][name]
            load_optimizer(optimizers, state.modules[name], moved, names, path)

    def _settings(self) -> dict[str, Any]:
        return settings(self.config, self.accelerator.num_processes)


def binding(config: TrainConfig, manifest: str | None, record: Mapping[str, str]) -> dict[str, Any]:
    """The facts that a checkpoint is tied to: the config's binding keys, flat, the manifest of the
    training data, and the task's record."""
    tree = config.model_dump(mode="json")
    bound = {key: value for key, value in tree.items() if key not in _FREE}
    flat = dict(leaves(bound, lists=True))
    flat = {key: value for key, value in flat.items() if not key.startswith(_FREE_INSIDE)}
    # Rates and decays may change, but the state of one kind of optimizer says nothing to another.
    flat["optimizer.kind"] = config.optimizer.kind
    return flat | {_MANIFEST: manifest} | dict(record)


def _check_ranks_agree(step: int, files: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Sums of replicas must be equal, exactly: a run that drifted apart must not go on unseen."""
    if distributed.world_size() == 1:
        return
    named = {
        f"{file}/{key}": value.detach()
        for file, state in files.items()
        for key, value in state.items()
        if distributed.local(value) is value
    }
    sums = torch.stack([value.double().sum() for value in named.values()])
    for rank, theirs in enumerate(distributed.gather(sums[None])):
        for name, mine, other in zip(named, sums.tolist(), theirs.tolist(), strict=True):
            if mine != other and not (math.isnan(mine) and math.isnan(other)):
                raise RuntimeError(
                    f"step {step}: {name} of process {distributed.rank()} is not that of process "
                    f"{rank} (sums {mine!r} and {other!r}); the older checkpoints are kept"
                )


def _same(saved: dict[str, Any], now: dict[str, Any], path: Path) -> None:
    # The config's own keys first: they say more than a number, and that more than a hash.
    for key in sorted({*saved, *now}, key=lambda name: (name.startswith("data ("), name)):
        if saved.get(key) != now.get(key):
            raise ConfigError(
                f"{key}: the checkpoint {path} was trained with {saved.get(key)!r}, the config "
                f"says {now.get(key)!r}; set it back, or use resume=never or another out"
            )


def _file(snapshot: Snapshot, name: str, path: Path) -> dict[str, Tensor]:
    if name not in snapshot.tensors:
        raise CheckpointError(
            f"{path}: no {name}.safetensors; it was saved by another config: use resume=never"
        )
    return dict(snapshot.tensors[name])
