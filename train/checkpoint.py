"""Checkpoints: written whole or not at all, found by their closing manifest, read without code.

A checkpoint is a folder `step_00001000`: one safetensors file for each module, each average and
each optimiser, `state.json` for counters, and last of all `manifest.json` with the size and sha256
of every file. It is written beside its place, synced, and renamed into it.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vistok import __version__
from vistok.config import ConfigError
from vistok.weights import WeightsError, read_safetensors, sha256, write_safetensors

_FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file."""


@dataclass(frozen=True)
class State:
    """Everything a run needs to go on: tensors by file, plain facts for state.json."""

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    facts: Mapping[str, Any]


def save(folder: Path, state: State, keep_last: int) -> Path:
    """Write `folder/step_XXXXXXXX`, then drop all but the newest `keep_last` complete ones."""
    target = folder / f"step_{state.step:08d}"
    draft = folder / f".writing_{target.name}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        for name, tensors in state.tensors.items():
            write_safetensors(tensors, draft / f"{name}.safetensors")
        facts = {"step": state.step, **state.facts}
        (draft / "state.json").write_text(json.dumps(facts, indent=1) + "\n")
        files = {
            path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)}
            for path in sorted(draft.iterdir())
        }
        manifest = {
            "format": _FORMAT,
            "step": state.step,
            "files": files,
            "versions": {"vistok": __version__, "torch": torch.__version__},
        }
        (draft / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
        for path in draft.iterdir():
            _sync(path)
        _sync(draft)
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
        _sync(folder)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise CheckpointError(
            f"{target}: cannot be written ({error}); the older checkpoints are untouched"
        ) from None
    for old in complete(folder)[keep_last:]:
        shutil.rmtree(old)
    return target


def complete(folder: Path) -> list[Path]:
    """Checkpoints that have a manifest, newest first."""
    found = folder.glob("step_*/manifest.json")
    return sorted((path.parent for path in found), reverse=True)


def set_aside(folder: Path, after: int) -> None:
    """Rename checkpoints of later steps: a run that starts again earlier must not find them."""
    for path in complete(folder):
        if int(path.name.removeprefix("step_")) > after:
            aside = folder / f"abandoned_{path.name}"
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)


def find(folder: Path, resume: str) -> Path | None:
    """The checkpoint to go on from: `auto` the newest undamaged one, `never` none, or a path."""
    if resume == "never":
        return None
    if resume != "auto":
        path = Path(resume)
        if not path.is_dir():
            raise ConfigError(
                f"resume: {path}: no such checkpoint; expected a folder step_*, auto or never"
            )
        verify(path)
        return path
    for path in complete(folder):
        try:
            verify(path)
            return path
        except CheckpointError as error:
            warnings.warn(f"{error}; passed over", stacklevel=2)
    return None


def verify(path: Path) -> None:
    """Check every file against the manifest; CheckpointError names the first that differs."""
    manifest = _json(path / "manifest.json")
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise CheckpointError(f"{path / 'manifest.json'}: no list of files; it is damaged")
    for name, facts in files.items():
        file = path / name
        if not file.is_file():
            raise CheckpointError(f"{file}: missing")
        if file.stat().st_size != facts["bytes"]:
            raise CheckpointError(f"{file}: {file.stat().st_size} bytes; expected {facts['bytes']}")
        if sha256(file) != facts["sha256"]:
            raise CheckpointError(f"{file}: its sha256 is not that of the manifest; it is damaged")


def load(path: Path) -> State:
    """Read a verified checkpoint."""
    facts = _json(path / "state.json")
    try:
        tensors = {file.stem: read_safetensors(file) for file in sorted(path.glob("*.safetensors"))}
    except WeightsError as error:
        raise CheckpointError(str(error)) from None
    return State(facts["step"], tensors, facts)


def optimizer_state(
    optimizers: list[torch.optim.Optimizer], module: nn.Module
) -> tuple[dict[str, Tensor], list[list[str]]]:
    """A module's optimisers by parameter name: tensors `name/key`, and who moves which names.

    Names are the bare module's, so that a run with any wrapper can load them. Settings (rates,
    decay, betas) are the config's and not saved.
    """
    names = {parameter: name for name, parameter in module.named_parameters()}
    tensors = {
        f"{names[parameter]}/{key}": value
        for optimizer in optimizers
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }
    return tensors, _moved(optimizers, names)


def load_optimizer(
    optimizers: list[torch.optim.Optimizer],
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    moved: list[list[str]],
    source: Path,
) -> None:
    """The inverse; CheckpointError if the optimisers move other parameters."""
    names = {parameter: name for name, parameter in module.named_parameters()}
    if _moved(optimizers, names) != moved:
        raise CheckpointError(
            f"{source}: its optimisers moved other parameters; it was saved by another config: "
            "use resume=never"
        )
    owner = {
        names[parameter]: (optimizer, parameter)
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for optimizer in optimizers:
        optimizer.state.clear()
    for name, value in tensors.items():
        of, _, key = name.rpartition("/")
        optimizer, parameter = owner[of]
        # Step counters stay where AdamW keeps them: on the CPU unless it is fused on a GPU.
        device = "cpu" if key == "step" and not parameter.is_cuda else parameter.device
        optimizer.state[parameter][key] = value.to(device)


def _moved(
    optimizers: list[torch.optim.Optimizer], names: Mapping[nn.Parameter, str]
) -> list[list[str]]:
    """Names of the parameters that each optimiser moves, sorted."""
    return [
        sorted(names[p] for group in optimizer.param_groups for p in group["params"])
        for optimizer in optimizers
    ]


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return data


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
