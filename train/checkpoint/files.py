"""Checkpoints: written whole or not at all, found by their closing manifest, read without code.

A checkpoint is a folder `step_00001000`: one safetensors file for each module, each average and
each optimizer, `state.json` for counters, and last of all `manifest.json` with the size and sha256
of every file and a seal over itself. It is written beside its place, synced, and renamed into it;
what a kill leaves behind begins with a dot and is swept away by the next save.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vistok import __version__
from vistok.config import ConfigError
from vistok.config.bounded import read_json
from vistok.config.errors import UserError
from vistok.storage.files import sync
from vistok.storage.weights import WeightsError, read_safetensors, sha256, write_safetensors

_FORMAT = 2
_MANIFEST, _STATE = "manifest.json", "state.json"
_DRAFT, _DOOMED = ".writing_", ".removing_"
_SPARE = 2**20  # bytes beside the tensors: headers and the JSON files


class CheckpointError(UserError, ValueError):
    """A checkpoint that cannot be used or written; the message names the file."""


@dataclass(frozen=True)
class Snapshot:
    """Everything a run needs to resume: tensors by file, plain facts for state.json."""

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    facts: Mapping[str, Any]
    score: float | None = None
    """The validation metric of this step, higher is better; None = it was not validated."""


@dataclass(frozen=True)
class Keep:
    """Which checkpoints stay: the union of three rules."""

    last: int = 2
    """The newest so many."""
    best: int = 0
    """So many with the highest score."""
    every: int = 0
    """Those of steps that are a multiple of this; 0 = none."""


def save(folder: Path, snapshot: Snapshot, keep: Keep) -> Path:
    """Write `folder/step_XXXXXXXX`, then remove the complete ones that `keep` does not name.

    CheckpointError if it cannot be written (a full disk); older checkpoints are then untouched.
    """
    target = folder / f"step_{snapshot.step:08d}"
    draft = folder / f"{_DRAFT}{target.name}"
    try:
        sweep(folder)
        draft.mkdir(parents=True)
        _check_space(folder, snapshot)
        _write(draft, snapshot)
        if target.exists():
            _remove(target)
        draft.rename(target)
        sync(folder)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise CheckpointError(
            f"{target}: cannot be written ({error.strerror or error}); the older checkpoints are "
            "untouched: make space or set another out, then start the same command again"
        ) from None
    prune(folder, keep)
    return target


def prune(folder: Path, keep: Keep) -> None:
    """Remove complete checkpoints that none of the rules names."""
    steps = complete(folder)
    kept = set(steps[: keep.last])
    if keep.every:
        kept |= {path for path in steps if step_of(path) % keep.every == 0}
    if keep.best:
        scored = [(score, path) for path in steps if (score := _score(path)) is not None]
        kept |= {path for _, path in sorted(scored, reverse=True)[: keep.best]}
    for path in steps:
        if path not in kept:
            _remove(path)


def sweep(folder: Path) -> None:
    """Remove what a kill left half written or half removed."""
    for prefix in (_DRAFT, _DOOMED):
        for path in folder.glob(f"{prefix}step_*"):
            shutil.rmtree(path)


def complete(folder: Path) -> list[Path]:
    """Checkpoints that have a manifest, newest first."""
    found = folder.glob(f"step_*/{_MANIFEST}")
    return sorted((path.parent for path in found), reverse=True)


def step_of(path: Path) -> int:
    return int(path.name.removeprefix("step_"))


def set_aside(folder: Path, after: int) -> None:
    """Rename checkpoints of later steps: a run that starts again earlier must not find them."""
    for path in complete(folder):
        if step_of(path) > after:
            aside = folder / f"abandoned_{path.name}"
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)


def find(folder: Path, resume: str) -> Path | None:
    """The checkpoint to resume from: `auto` the newest undamaged one, `never` none, or a path."""
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
    for name, facts in _manifest(path)["files"].items():
        file = path / name
        if not file.is_file():
            raise CheckpointError(f"{file}: missing")
        if file.stat().st_size != facts["bytes"]:
            raise CheckpointError(f"{file}: {file.stat().st_size} bytes; expected {facts['bytes']}")
        if sha256(file) != facts["sha256"]:
            raise CheckpointError(f"{file}: its sha256 is not that of the manifest; it is damaged")


def load(path: Path) -> Snapshot:
    """Read a verified checkpoint: the files of its manifest, nothing else that lies there."""
    names = [name for name in _manifest(path)["files"] if name.endswith(".safetensors")]
    facts = _json(path / _STATE)
    try:
        tensors = {Path(name).stem: read_safetensors(path / name) for name in sorted(names)}
    except WeightsError as error:
        raise CheckpointError(str(error)) from None
    if type(facts.get("step")) is not int:
        raise CheckpointError(f"{path / _STATE}: no step in it; it is damaged")
    return Snapshot(facts["step"], tensors, facts)


def _write(draft: Path, snapshot: Snapshot) -> None:
    for name, tensors in snapshot.tensors.items():
        write_safetensors(tensors, draft / f"{name}.safetensors")
    facts = {"step": snapshot.step, **snapshot.facts}
    (draft / _STATE).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    for path in draft.iterdir():
        sync(path)
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(draft.iterdir())
    }
    manifest = {
        "format": _FORMAT,
        "step": snapshot.step,
        "score": snapshot.score,
        "files": files,
        "versions": {"vistok": __version__, "torch": torch.__version__},
    }
    (draft / _MANIFEST).write_text(_sealed(manifest), encoding="utf-8")
    sync(draft / _MANIFEST)
    sync(draft)


def _sealed(manifest: Mapping[str, Any]) -> str:
    """The one text that says this manifest: its last line seals the others."""
    seal = hashlib.sha256(json.dumps(manifest, indent=1).encode()).hexdigest()
    return json.dumps({**manifest, "seal": seal}, indent=1) + "\n"


def _manifest(path: Path) -> dict[str, Any]:
    """manifest.json, checked to the byte; CheckpointError otherwise."""
    file = path / _MANIFEST
    manifest = _json(file)
    if manifest.get("format") != _FORMAT:
        raise CheckpointError(
            f"{file}: format {manifest.get('format')!r}; this vistok reads {_FORMAT}: resume with "
            "the version that wrote it, or use resume=never"
        )
    body = {key: value for key, value in manifest.items() if key != "seal"}
    if file.read_text("utf-8") != _sealed(body):
        raise CheckpointError(f"{file}: its seal does not fit its text; it is damaged")
    if any(name != Path(name).name for name in manifest["files"]):
        raise CheckpointError(f"{file}: names a file outside of its folder; it is damaged")
    return manifest


def _score(path: Path) -> float | None:
    try:
        return _manifest(path)["score"]
    except CheckpointError:
        return None  # damaged: it competes for nothing, and `find` will name it


def _check_space(folder: Path, snapshot: Snapshot) -> None:
    """OSError before anything is written, if the disk cannot hold it."""
    need = _SPARE + sum(
        tensor.numel() * tensor.element_size()
        for tensors in snapshot.tensors.values()
        for tensor in tensors.values()
    )
    free = shutil.disk_usage(folder).free
    if free < need:
        raise OSError(f"it needs {need / 2**20:.1f} MiB and the disk has {free / 2**20:.1f} free")


def _remove(path: Path) -> None:
    """Out of sight first: a kill must not leave a checkpoint that is half there."""
    doomed = path.with_name(f"{_DOOMED}{path.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed)


def _json(path: Path) -> dict[str, Any]:
    try:
        data = read_json(path)
    except (OSError, ValueError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise CheckpointError(f"{path}: cannot be read as JSON ({reason})") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return data
