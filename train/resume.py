"""What a checkpoint holds of a run, and how a run goes on from it.

A checkpoint belongs to its config: a key that would change what was trained so far is refused by
name. How long, how often and on how many processes may change; so may the optimizer's settings,
which always come from the config.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from vistok.config import ConfigError
from vistok.config.errors import NonFiniteError
from vistok.data.loading.stream_loader import StreamLoader
from vistok.runtime import distributed
from vistok.storage.weights import load_strict
from vistok.train import checkpoint
from vistok.train.checkpoint import CheckpointError, Keep, State
from vistok.train.optim_state import load_optimizer, optimizer_state

if TYPE_CHECKING:
    from vistok.train.loop import Loop

# Keys that may differ between a checkpoint and the run that goes on from it.
_FREE = {
    *("name", "out", "steps", "accumulate", "optimizer", "warmup", "final_lr", "clip"),
    *("precision", "compile", "sharding", "workers", "max_bad_share", "max_skipped", "log_every"),
    *("validate_every", "validate_batch", "validate_limit", "grid_every", "save_every"),
    *("keep_last", "keep_best", "keep_every", "resume", "trackers", "peak_tflops"),
}
# The same of keys inside parts: what is only watched.
_FREE_INSIDE = ("task.collapse", "task.term_gradients_every")
_MANIFEST = "data (manifest)"


def collect(loop: Loop) -> State:
    """The state of a run after a step, whole on every rank; every rank must call it.

    FloatingPointError if weights are not finite, RuntimeError if ranks hold different ones.
    """
    files: dict[str, Mapping[str, Tensor]] = {n: m.state_dict() for n, m in loop.bare.items()}
    files |= {f"ema.{n}": average.state_dict() for n, average in loop.averages.items()}
    loop.task.share()
    kept = {n: module.state_dict() for n, module in loop.task.kept.items()}
    files |= {f"task.{n}": state for n, state in kept.items() if state}
    _check_ranks_agree(loop.step, files)
    facts: dict[str, Any] = {
        "world": loop.accelerator.num_processes,
        "config": _binding(loop),
        "optimizers": {},
        "ema_updates": {name: average.updates for name, average in loop.averages.items()},
        "skipped": loop.guard.skipped,
        "precisions": loop.config.precisions,
    }
    if isinstance(loop.loader, StreamLoader):
        parts = gather_object([loop.loader.positions])
        positions = {lane: place for part in parts for lane, place in part.items()}
        facts["stream"] = {"lanes": loop.loader.lanes, "positions": positions}
    tensors: dict[str, dict[str, Tensor]] = {
        file: {key: distributed.whole(value) for key, value in state.items()}
        for file, state in files.items()
    }
    for file, state in tensors.items():
        for key, value in state.items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise NonFiniteError(
                    f"step {loop.step}: {file}/{key} is not finite; the older checkpoints are "
                    "kept: lower optimizer.lr, or use precision=fp32"
                )
    for name, optimizers in loop.optimizers.items():
        moved, names = optimizer_state(optimizers, loop.bare[name])
        tensors[f"optimizer.{name}"], facts["optimizers"][name] = moved, names
    return State(loop.step, tensors, facts, loop.score)


def found(loop: Loop) -> Path | None:
    """The checkpoint to go on from; the main process decides, for all of them."""
    config, folder = loop.config, loop.folder / "checkpoints"
    path = _by_main(loop, lambda: checkpoint.find(folder, config.resume))
    if path is not None and not path.is_dir():
        raise ConfigError(
            f"resume: {path} is not visible to process {loop.accelerator.process_index}; "
            "put `out` on a disk that all machines share"
        )
    return path


def save(loop: Loop) -> None:
    """A checkpoint of this step, written by the main process; a failure ends all of them."""
    state, config = collect(loop), loop.config
    keep = Keep(config.keep_last, config.keep_best, config.keep_every)
    _by_main(loop, lambda: checkpoint.save(loop.folder / "checkpoints", state, keep))


def _by_main(loop: Loop, work: Callable[[], Path | None]) -> Path | None:
    """What the main process gets, or the error that it meets, for every process."""
    outcome: list[Any] = [None]
    if loop.accelerator.is_main_process:
        try:
            outcome = [work()]
        except (ConfigError, CheckpointError) as error:
            outcome = [error]
    (result,) = broadcast_object_list(outcome)
    if isinstance(result, Exception):
        raise result
    return result


def restore_modules(loop: Loop, path: Path) -> State:
    """Put a checkpoint's weights, averages and counters into a run whose modules are whole."""
    state = checkpoint.load(path)
    _same(state.facts.get("config", {}), _binding(loop), path)
    modules = {**loop.bare, **{f"task.{n}": m for n, m in loop.task.kept.items()}}
    for name, module in modules.items():
        if name in loop.bare or module.state_dict():
            load_strict(module, _file(state, name, path), path / f"{name}.safetensors")
    for name, average in loop.averages.items():
        file = path / f"ema.{name}.safetensors"
        load_strict(average.module, _file(state, f"ema.{name}", path), file)
        average.updates = state.facts["ema_updates"][name]
    for twin in loop.twins.values():
        twin.copy()
    loop.step, loop.stream = state.step, state.facts.get("stream")
    loop.guard.skipped = state.facts["skipped"]
    return state


def changed_precision(loop: Loop, state: State) -> str:
    """What `auto` made of another machine, or the user: ", precision: bf16 before, fp32 now"."""
    before, now = state.facts.get("precisions", {}), loop.config.precisions
    return "".join(
        f", {key}: {before[key]} before, {now[key]} now"
        for key in now
        if before.get(key, now[key]) != now[key]
    )


def restore_optimizers(loop: Loop, state: State, path: Path) -> None:
    """Put a checkpoint's optimizer state into a run whose modules are wrapped, or sharded."""
    for name, optimizers in loop.optimizers.items():
        moved, names = _file(state, f"optimizer.{name}", path), state.facts["optimizers"][name]
        load_optimizer(optimizers, loop.bare[name], moved, names, path)


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


def _binding(loop: Loop) -> dict[str, Any]:
    """What a checkpoint is tied to: the config's binding keys, flat, the data's manifest, and what
    the task says."""
    config = loop.config.model_dump(mode="json")
    flat = _flatten({key: value for key, value in config.items() if key not in _FREE})
    flat = {key: value for key, value in flat.items() if not key.startswith(_FREE_INSIDE)}
    return flat | {_MANIFEST: loop.data_record.get("manifest")} | loop.task.record()


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(tree, dict):
        items = tree.items()
    elif isinstance(tree, list):
        items = enumerate(tree)
    else:
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for key, value in items:
        flat |= _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _same(saved: dict[str, Any], now: dict[str, Any], path: Path) -> None:
    # The config's own keys first: they say more than a hash.
    for key in sorted({*saved, *now}, key=lambda name: (name == _MANIFEST, name)):
        if saved.get(key) != now.get(key):
            raise ConfigError(
                f"{key}: the checkpoint {path} was trained with {saved.get(key)!r}, the config "
                f"says {now.get(key)!r}; set it back, or use resume=never or another out"
            )


def _file(state: State, name: str, path: Path) -> dict[str, Tensor]:
    if name not in state.tensors:
        raise CheckpointError(
            f"{path}: no {name}.safetensors; it was saved by another config: use resume=never"
        )
    return dict(state.tensors[name])
