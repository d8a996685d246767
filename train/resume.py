"""What a checkpoint holds of a run, and how a run goes on from it.

A checkpoint belongs to its config: a key that would change what was trained so far is refused by
name. How long, how often and on how many processes may change; so may the optimiser's settings,
which always come from the config.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object
from torch import Tensor

from train import checkpoint
from train.checkpoint import CheckpointError, State
from vistok.config import ConfigError
from vistok.data.stream_loader import StreamLoader
from vistok.weights import load_strict

if TYPE_CHECKING:
    from train.loop import Loop

# Keys that may differ between a checkpoint and the run that goes on from it.
_FREE = {
    *("name", "out", "steps", "accumulate", "optimizer", "warmup", "final_lr", "clip"),
    *("precision", "compile", "workers", "max_bad_share", "log_every", "validate_every"),
    *("validate_batch", "validate_limit", "grid_every", "save_every", "keep_last", "resume"),
    "trackers",
}
_MANIFEST = "data (manifest)"


def collect(loop: Loop) -> State:
    """The state of a run after a step; FloatingPointError if weights are not finite."""
    tensors: dict[str, dict[str, Tensor]] = {}
    facts: dict[str, Any] = {
        "world": loop.accelerator.num_processes,
        "config": _binding(loop),
        "optimizers": {},
        "ema_updates": {name: average.updates for name, average in loop.averages.items()},
    }
    if isinstance(loop.loader, StreamLoader):
        parts = gather_object([loop.loader.positions])
        positions = {lane: place for part in parts for lane, place in part.items()}
        facts["stream"] = {"lanes": loop.loader.lanes, "positions": positions}
    for name, module in loop.bare.items():
        tensors[name] = module.state_dict()
    for name, average in loop.averages.items():
        tensors[f"ema.{name}"] = average.module.state_dict()
    for file, state in tensors.items():
        for key, value in state.items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise FloatingPointError(
                    f"step {loop.step}: {file}/{key} is not finite; the older checkpoints are "
                    "kept: lower optimizer.lr, or use precision=fp32"
                )
    for name, optimizers in loop.optimizers.items():
        moved, names = checkpoint.optimizer_state(optimizers, loop.bare[name])
        tensors[f"optimizer.{name}"], facts["optimizers"][name] = moved, names
    return State(loop.step, tensors, facts)


def restore(loop: Loop, path: Path) -> None:
    """Put a checkpoint's state into a run that was just built."""
    state = checkpoint.load(path)
    _same(state.facts.get("config", {}), _binding(loop), path)
    for name, module in loop.bare.items():
        load_strict(module, _file(state, name, path), path / f"{name}.safetensors")
    for name, average in loop.averages.items():
        file = path / f"ema.{name}.safetensors"
        load_strict(average.module, _file(state, f"ema.{name}", path), file)
        average.restore(state.facts["ema_updates"][name])
    for name, optimizers in loop.optimizers.items():
        moved, names = _file(state, f"optimizer.{name}", path), state.facts["optimizers"][name]
        checkpoint.load_optimizer(optimizers, loop.bare[name], moved, names, path)
    loop.step, loop.stream = state.step, state.facts.get("stream")


def _binding(loop: Loop) -> dict[str, Any]:
    """What a checkpoint is tied to: the config's binding keys, flat, and the data's manifest."""
    config = loop.config.model_dump(mode="json")
    flat = _flatten({key: value for key, value in config.items() if key not in _FREE})
    return flat | {_MANIFEST: loop.train_set.record().get("manifest")}


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
