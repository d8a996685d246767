"""Samples -> one batch, as a loader's worker process sends it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from vistok.core.records import Condition
from vistok.core.rng import Rng
from vistok.data.base import DataError, Facts, Sample
from vistok.data.batch import LoadedBatch, map_tensors
from vistok.data.loading.shared_buffers import Place, SharedBuffers
from vistok.data.loading.shared_memory import shared
from vistok.tokens import Tokens


@dataclass(frozen=True)
class Row:
    """A sample, its mirroring, and the samples that could not be used in its place."""

    sample: Sample | None
    flip: bool
    bad: tuple[tuple[str, str], ...]  # (name, reason)
    error: str | None = None  # why the data set as a whole cannot be read


@dataclass(frozen=True)
class Loaded:
    """A worker's message. Errors travel as values: torch would wrap them in tracebacks."""

    batch: LoadedBatch | None
    rows: int
    replaced: int
    bad: list[tuple[str, str]]
    notes: tuple[tuple[str, str], ...] = ()  # (name, what is odd about it) of samples that are used
    place: Place | None = None  # of the pixels, if they are still in a worker's buffer
    error: str | None = None  # of a row, or of the batch itself

    def pin_memory(self) -> Loaded:  # torch calls this by name
        if self.batch is None:
            return self
        batch = as_tensors(self.batch)
        moved = {f.name: getattr(batch, f.name) for f in fields(batch) if f.name != "index"}
        pinned: dict[str, Any] = {}
        for name, value in moved.items():
            if isinstance(value, Tensor | Tokens):
                pinned[name] = value.pin_memory()
            elif isinstance(value, Condition):
                pinned[name] = map_tensors(value, Tensor.pin_memory)
        return replace(self, batch=replace(batch, **pinned))


class Collate:
    """Rows -> one batch. Its fields follow from what the data set says of all its samples."""

    def __init__(self, dataset: Facts, buffers: SharedBuffers | None = None) -> None:
        self.labeled, self.flips = bool(dataset.classes), dataset.flip
        self.spec, self.buffers = dataset.spec, buffers
        self.clips, self.texts = dataset.frames is not None, dataset.texts
        self.features, self.targets = tuple(dataset.features), dataset.targets

    def __call__(self, rows: list[Row]) -> Loaded:
        bad = [item for row in rows for item in row.bad]
        replaced = sum(bool(row.bad) for row in rows)
        error = next((row.error for row in rows if row.error is not None), None)
        if any(row.sample is None for row in rows):
            return Loaded(None, len(rows), replaced, bad, error=error)
        samples = [row.sample for row in rows]
        notes = tuple((sample.name, sample.note) for sample in samples if sample.note)
        place = None
        if self.buffers is not None:
            place = self.buffers.put([s.pixels for s in samples])
        stacked = not self.spec and place is None
        batch = LoadedBatch(
            index=torch.tensor([s.index for s in samples], dtype=torch.int64),
            pixels=torch.stack([s.pixels for s in samples]) if stacked else None,
            target=torch.stack([s.target for s in samples]) if self.targets else None,
            label=torch.tensor([s.label for s in samples]) if self.labeled else None,
            text=tuple(s.text for s in samples) if self.texts else None,
            fps=torch.tensor([s.fps for s in samples]) if self.clips else None,
            tokens=self._tokens(samples, "tokens") if self.spec else None,
            prefix=self._tokens(samples, "prefix") if "prefix" in self.features else None,
            latents=self._stacked(samples, "latents"),
            space=self._stacked(samples, "space"),
            condition=self._condition(samples),
            flip=torch.tensor([row.flip for row in rows]) if self.flips else None,
        )
        if self.buffers is not None:
            batch = as_arrays(batch)
        if get_worker_info() is not None:
            try:
                batch = shared(batch)
            except DataError as refused:
                return Loaded(None, len(rows), replaced, bad, error=str(refused))
        return Loaded(batch, len(rows), replaced, bad, notes, place)

    def _tokens(self, samples: list[Sample], name: str) -> Tokens:
        stacked = torch.stack([getattr(s, name) for s in samples])  # [B, L, F] | [B, L, dim]
        if self.spec.vocab:
            return Tokens(self.spec, indices=stacked).check()
        return Tokens(self.spec, values=stacked)

    def _stacked(self, samples: list[Sample], name: str) -> Tensor | None:
        return torch.stack([getattr(s, name) for s in samples]) if name in self.features else None

    def _condition(self, samples: list[Sample]) -> Condition | None:
        """Cached features of the texts: text [B, (K,) M, C], text_mask [B, M], pooled [B, C]."""
        names = [n for n in self.features if n not in ("latents", "space", "prefix")]
        if not names:
            return None
        stacked = {n: torch.stack([getattr(s.condition, n) for s in samples]) for n in names}
        return Condition(**stacked)


class MixedCollate:
    """Rows of one data set of a mix -> one batch, with labels and texts if all sets have them."""

    def __init__(self, dataset: Facts, buffers: SharedBuffers | None = None) -> None:
        self.dataset = dataset
        self.collates = [Collate(one, buffers) for one in dataset.sets]
        for collate in self.collates:
            collate.labeled, collate.texts = bool(dataset.classes), dataset.texts

    def __call__(self, rows: list[Row]) -> Loaded:
        found = (row.sample.index for row in rows if row.sample is not None)
        return self.collates[self.dataset.place(next(found, 0))[0]](rows)


def collate_of(dataset: Facts, buffers: SharedBuffers | None = None) -> Collate | MixedCollate:
    """The collation of a data set's rows, or of those of a mix."""
    return (MixedCollate if dataset.sets else Collate)(dataset, buffers)


class LeaveOut:
    """Rows -> one batch of those that are good; the batch is None if none is."""

    def __init__(self, collate: Collate | MixedCollate) -> None:
        self.collate = collate

    def __call__(self, rows: list[Row]) -> Loaded:
        bad = [item for row in rows for item in row.bad]
        kept = [row for row in rows if not row.bad]
        loaded = self.collate(kept) if kept else Loaded(None, 0, 0, [])
        return replace(loaded, rows=len(rows), bad=bad)


_SMALL = ("index", "label", "fps", "flip")


def as_arrays(batch: LoadedBatch) -> LoadedBatch:
    """Small tensors as arrays, which are pickled; torch would open shared memory for each."""
    small = {name: getattr(batch, name) for name in _SMALL}
    return replace(batch, **{n: x.numpy() for n, x in small.items() if x is not None})


def as_tensors(batch: LoadedBatch) -> LoadedBatch:
    """The inverse of `as_arrays`."""
    small = {name: getattr(batch, name) for name in _SMALL}
    back = {n: torch.from_numpy(x) for n, x in small.items() if isinstance(x, np.ndarray)}
    return replace(batch, **back)


def mirrored(dataset: Facts, seed: int, epoch: int, index: int) -> bool:
    """True if training mirrors this sample in this epoch."""
    if not dataset.flip:
        return False
    return bool(Rng(seed, "flip", epoch).generator(index).random() < 0.5)
