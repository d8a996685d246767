"""Checkpoints: written whole or not at all, found by their closing manifest, read without code.

A checkpoint is a folder `step_00001000`: one safetensors file for each module, each average and
each optimizer, `state.json` for counters, and last of all `manifest.json` with the size and sha256
of every file and a seal over itself. It is written beside its place, synced, and renamed into it;
what a kill leaves behind begins with a dot and is swept away by the next save. Every other folder
beside it, such as a copy `step_00001000_best`, is the user's: never resumed from, never removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vistok import __version__
from vistok.config import ConfigError
from vistok.config.errors import UserError
from vistok.storage.files import sync, write_text
from vistok.storage.sealed import (
    SEAL,
    SealError,
    check_files,
    check_names,
    check_seal,
    facts_of_files,
    read_record,
    sealed,
)
from vistok.storage.weights import WeightsError, read_safetensors, write_safetensors

_FORMAT = 2
_MANIFEST, _STATE = "manifest.json", "state.json"
_DRAFT, _DOOMED = ".writing_", ".removing_"
_STEP = re.compile(r"step_(\d{8,})")
_SPARE = 2**20  # bytes beside the tensors: headers and the JSON files


class CheckpointError(UserError, ValueError):
    """A checkpoint that cannot be used or written; the message names the file."""


@dataclass(frozen=True)
class Snapshot:
    """Everything a run needs to resume: tensors by file, plain facts for state.json."""

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    facts: Mapping[str, Any]


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
        if target.is_symlink() or target.exists():
            _remove(target) if _is_ours(target) else _rename_aside(target)
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
        if path not in kept and not path.is_symlink():  # who links one elsewhere wants to keep it
            _remove(path)


def set_score(path: Path, score: float) -> None:
    """Give a checkpoint its validation metric, higher is better; it was saved before it was known.

    CheckpointError if the manifest is damaged, UnwrittenError if the disk refuses.
    """
    manifest = {name: value for name, value in _manifest(path).items() if name != SEAL}
    write_text(path / _MANIFEST, sealed({**manifest, "score": score}))


def identity(path: Path) -> str:
    """Hash of what a checkpoint holds: its step and the hashes of its files."""
    manifest = _manifest(path)
    told = {"step": manifest["step"], "files": manifest["files"]}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def sweep(folder: Path) -> None:
    """Remove what a kill left half written or half removed."""
    for prefix in (_DRAFT, _DOOMED):
        for path in folder.glob(f"{prefix}step_*"):
            if _STEP.fullmatch(path.name.removeprefix(prefix)):
                shutil.rmtree(path)


def complete(folder: Path) -> list[Path]:
    """Checkpoints that training wrote here and closed with a manifest, newest first."""
    return sorted(filter(_is_ours, folder.glob("step_*")), key=step_of, reverse=True)


def step_of(path: Path) -> int:
    """The step in the name of a checkpoint."""
    return int(path.name.removeprefix("step_"))


def set_aside(folder: Path, after: int) -> list[Path]:
    """Rename checkpoints of later steps, which a run that starts again earlier must not find; their
    new places."""
    return [_rename_aside(path) for path in complete(folder) if step_of(path) > after]


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
    manifest = _manifest(path)
    with _named():
        check_files(path, manifest["files"])


def load(path: Path) -> Snapshot:
    """Read a verified checkpoint: the files of its manifest, nothing else that lies there."""
    names = [name for name in _manifest(path)["files"] if name.endswith(".safetensors")]
    facts, _ = _json(path / _STATE)
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
    files = facts_of_files(sorted(draft.iterdir()))
    manifest = {
        "format": _FORMAT,
        "step": snapshot.step,
        "score": None,
        "files": files,
        "versions": {"vistok": __version__, "torch": torch.__version__},
    }
    (draft / _MANIFEST).write_text(sealed(manifest), encoding="utf-8")
    sync(draft / _MANIFEST)
    sync(draft)


def _manifest(path: Path) -> dict[str, Any]:
    """manifest.json, checked to the byte; CheckpointError otherwise."""
    file = path / _MANIFEST
    manifest, text = _json(file)
    if manifest.get("format") != _FORMAT:
        raise CheckpointError(
            f"{file}: format {manifest.get('format')!r}; this vistok reads {_FORMAT}: resume with "
            "the version that wrote it, or use resume=never"
        )
    with _named():
        check_seal(file, manifest, text)
        check_names(file, manifest["files"])
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


def _is_ours(path: Path) -> bool:
    """True for a checkpoint that training wrote under this very name, damaged or not."""
    if not _STEP.fullmatch(path.name) or path.name != f"step_{step_of(path):08d}":
        return False
    if not (path / _MANIFEST).is_file():
        return False
    try:
        return _manifest(path)["step"] == step_of(path)
    except (CheckpointError, FileNotFoundError):
        # `find` names a damaged one; the run that writes here may have pruned it meanwhile.
        return (path / _MANIFEST).is_file()


def _rename_aside(path: Path) -> Path:
    """Give a folder a name that no run looks at, and that is free."""
    aside = path.with_name(f"abandoned_{path.name}")
    others = (path.with_name(f"{aside.name}_{number}") for number in count(2))
    aside = next(place for place in chain([aside], others) if not os.path.lexists(place))
    path.rename(aside)
    return aside


def _remove(path: Path) -> None:
    """Out of sight first: a kill must not leave a checkpoint that is half there."""
    if path.is_symlink():
        path.unlink()
        return
    doomed = path.with_name(f"{_DOOMED}{path.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed)


def _json(path: Path) -> tuple[dict[str, Any], str]:
    with _named():
        return read_record(path)


@contextmanager
def _named() -> Iterator[None]:
    """Errors of sealed files under the name of a checkpoint's."""
    try:
        yield
    except SealError as error:
        raise CheckpointError(str(error)) from None
