"""Samples -> batches. What a batch holds depends on the order alone, not on workers or processes.

Training: a broken sample is noted in the quarantine, and its row is filled by the next good sample
of the order (which is thus seen twice); every other row stays where it is, so a resume still needs
no more than the step. Evaluation: every sample once, in order; a broken one is an error.
Pixels travel as uint8; `to_device` makes them floats in 0..1 and mirrors.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vistok.core.records import Batch
from vistok.core.rng import Rng
from vistok.data.base import BadSample, DataError, Dataset, Sample
from vistok.data.loading import workers as worker
from vistok.data.loading.quarantine import Quarantine
from vistok.data.loading.shared_buffers import Place, SharedBuffers
from vistok.data.loading.stream import Stream
from vistok.data.order import Order, eval_indices
from vistok.tokens import Tokens

_TRIES = 64  # bad samples in a row after which a data set is taken to be broken as a whole


@dataclass(frozen=True)
class LoadedBatch(Batch):
    """A batch on its way to the device: pixels are uint8, mirroring is decided but not done."""

    flip: Tensor | None = None  # [B] bool


class TrainLoader:
    """Batches of optimizer steps start_step .. steps-1, this rank's rows of each.

    Args:
        dataset: what is read.
        order: who sees which sample when; its seed also keys crops and mirroring.
        steps: the step at which training ends.
        start_step: the step to begin (or resume) at, at no cost.
        workers: processes that read; 0 = this one. Batches are the same.
        rank, world: this process and how many there are.
        folder: where `quarantine.jsonl` is kept; None = broken samples are only logged.
        max_bad_share: largest share of broken samples (over at least 1000) before DataError.
        pin_memory: copy batches to page-locked memory, for a CUDA device.
        prefetch: batches that each worker reads ahead.

    `.wait`: seconds that the caller has spent waiting for batches so far.
    """

    def __init__(
        self,
        dataset: Dataset,
        order: Order,
        *,
        steps: int,
        start_step: int = 0,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
        folder: str | Path | None = None,
        max_bad_share: float = 0.01,
        pin_memory: bool = False,
        prefetch: int = 2,
    ) -> None:
        if order.count != len(dataset):
            raise DataError(f"order of {order.count} samples for a data set of {len(dataset)}")
        order.positions(0, rank, world)  # the batch must split over the processes: say so now
        self.wait, self._steps = 0.0, range(start_step, steps)
        self._quarantine = Quarantine(folder, max_bad_share)
        self._read = _Reader(
            _TrainRows(dataset, order),
            _Batches(order, self._steps, rank, world),
            order.batch_size // world,
            dataset,
            workers,
            pin_memory,
            prefetch,
        )

    def __len__(self) -> int:
        """Batches of one iteration."""
        return len(self._steps)

    def __iter__(self) -> Iterator[LoadedBatch]:
        started = time.perf_counter()
        for loaded in self._read:
            self.wait += time.perf_counter() - started
            self._quarantine.count(loaded.rows, loaded.replaced, loaded.bad)
            if loaded.batch is None:
                name, reason = loaded.bad[-1]
                raise DataError(
                    f"{_TRIES} samples in a row cannot be used, the last is {name}: {reason}; "
                    f"check the data set"
                )
            yield loaded.batch
            started = time.perf_counter()


class EvalLoader:
    """Batches of an evaluation: each of the samples start .. limit-1 once, over all ranks.

    A rank may get one batch more than another, and the last batch may be short. A broken sample is
    a `BadSample` error: a number over fewer images than it claims would be worthless.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
        limit: int | None = None,
        start: int = 0,
        pin_memory: bool = False,
        prefetch: int = 2,
    ) -> None:
        self.count = len(dataset) if limit is None else min(limit, len(dataset))  # over all ranks
        self._batches = eval_indices(self.count, batch_size, rank, world, start)
        self._read = _Reader(
            _EvalRows(dataset), self._batches, batch_size, dataset, workers, pin_memory, prefetch
        )

    def __len__(self) -> int:
        """Batches of this rank."""
        return len(self._batches)

    def __iter__(self) -> Iterator[LoadedBatch]:
        for loaded in self._read:
            if loaded.bad:
                raise BadSample(*loaded.bad[0])
            yield loaded.batch


def to_device(batch: Batch, device: torch.device | str) -> Batch:
    """The batch on `device`: uint8 pixels -> float32 in 0..1, mirrored where its draws say so.

    `index` stays on the CPU: it keys draws, and asking a GPU for it would wait for all its work.
    """
    move = lambda tensor: None if tensor is None else tensor.to(device, non_blocking=True)
    moved = Batch(
        index=batch.index,
        pixels=_float(move(batch.pixels)),
        target=_float(move(batch.target)),
        label=move(batch.label),
        text=batch.text,
        fps=move(batch.fps),
        tokens=None if batch.tokens is None else batch.tokens.to(device, non_blocking=True),
        latents=move(batch.latents),
    )
    flip = move(getattr(batch, "flip", None))
    if flip is None or moved.pixels is None:
        return moved
    mirror = lambda x: torch.where(flip.view(-1, *[1] * (x.dim() - 1)), x.flip(-1), x)
    target = None if moved.target is None else mirror(moved.target)
    return replace(moved, pixels=mirror(moved.pixels), target=target)


def _float(pixels: Tensor | None) -> Tensor | None:
    if pixels is None or pixels.dtype != torch.uint8:
        return pixels
    return pixels.float().div_(255.0)


@dataclass(frozen=True)
class Row:
    """A sample, whether it is mirrored, and what could not be used on the way to it."""

    sample: Sample | None
    flip: bool
    bad: tuple[tuple[str, str], ...]  # (name, reason)


@dataclass(frozen=True)
class _Loaded:
    """What a worker hands over. Errors travel as values: torch would wrap them in tracebacks."""

    batch: LoadedBatch | None
    rows: int
    replaced: int
    bad: list[tuple[str, str]]
    place: Place | None = None  # of the pixels, if they are still in a worker's slot

    def pin_memory(self) -> _Loaded:  # torch calls this by name
        if self.batch is None:
            return self
        batch = _tensors(self.batch)
        moved = {f.name: getattr(batch, f.name) for f in fields(batch) if f.name != "index"}
        pinned = {k: v.pin_memory() for k, v in moved.items() if isinstance(v, Tensor | Tokens)}
        return replace(self, batch=replace(batch, **pinned))


class _TrainRows:
    """Position in the order -> row; torch's map-style data set."""

    def __init__(self, dataset: Dataset, order: Order) -> None:
        self.dataset, self.order = dataset, order

    def __getitem__(self, position: int) -> Row:
        bad: list[tuple[str, str]] = []
        for place in range(position, position + _TRIES):
            epoch, index = self.order.at(place)
            try:
                sample = self.dataset.sample(index, epoch, self.order.seed)
            except BadSample as error:
                bad.append((error.name, error.reason))
                continue
            return Row(sample, mirrored(self.dataset, self.order.seed, epoch, index), tuple(bad))
        return Row(None, False, tuple(bad))


def mirrored(dataset: Dataset | Stream, seed: int, epoch: int, index: int) -> bool:
    """Whether training mirrors this sample in this epoch."""
    if not dataset.flip:
        return False
    return bool(Rng(seed, "flip", epoch).generator(index).random() < 0.5)


class _EvalRows:
    """Data set index -> row; torch's map-style data set."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> Row:
        try:
            return Row(self.dataset.sample(index), False, ())
        except BadSample as error:
            return Row(None, False, ((error.name, error.reason),))


class _Batches:
    """Positions of each step, computed when asked for; torch's batch sampler."""

    def __init__(self, order: Order, steps: range, rank: int, world: int) -> None:
        self.order, self.steps, self.rank, self.world = order, steps, rank, world

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            yield list(self.order.positions(step, self.rank, self.world))


class Collate:
    """Rows -> one batch."""

    def __init__(self, dataset: Dataset | Stream, slots: SharedBuffers | None = None) -> None:
        self.labeled, self.flips = bool(dataset.classes), dataset.flip
        self.spec, self.slots = dataset.spec, slots
        self.clips, self.texts = dataset.frames is not None, dataset.texts

    def __call__(self, rows: list[Row]) -> _Loaded:
        bad = [item for row in rows for item in row.bad]
        replaced = sum(bool(row.bad) for row in rows)
        if any(row.sample is None for row in rows):
            return _Loaded(None, len(rows), replaced, bad)
        samples = [row.sample for row in rows]
        place = None
        if self.slots is not None:
            place = self.slots.put([s.pixels for s in samples])
        stacked = not self.spec and place is None
        batch = LoadedBatch(
            index=torch.tensor([s.index for s in samples], dtype=torch.int64),
            pixels=torch.stack([s.pixels for s in samples]) if stacked else None,
            label=torch.tensor([s.label for s in samples]) if self.labeled else None,
            text=tuple(s.text for s in samples) if self.texts else None,
            fps=torch.tensor([s.fps for s in samples]) if self.clips else None,
            tokens=self._tokens(samples) if self.spec else None,
            flip=torch.tensor([row.flip for row in rows]) if self.flips else None,
        )
        if self.slots is not None:
            batch = _arrays(batch)
        return _Loaded(batch, len(rows), replaced, bad, place)

    def _tokens(self, samples: list[Sample]) -> Tokens:
        stacked = torch.stack([s.tokens for s in samples])  # [B, L, F] | [B, L, dim]
        if self.spec.vocab:
            return Tokens(self.spec, indices=stacked).check()
        return Tokens(self.spec, values=stacked)


@dataclass(frozen=True)
class _Reader:
    """Loaded batches, read by this process or by workers; each iteration has its own workers."""

    rows: Any
    batches: Any
    size: int  # samples of the largest batch
    dataset: Dataset
    workers: int
    pin_memory: bool
    prefetch: int

    def __iter__(self) -> Iterator[_Loaded]:
        slots, size = None, self.dataset.size
        if self.workers and size is not None and self.dataset.spec is None:
            slots = SharedBuffers(self.workers, self.prefetch, self.size * 3 * size[0] * size[1])
        loader = DataLoader(
            self.rows,
            batch_sampler=self.batches,
            collate_fn=Collate(self.dataset, slots),
            num_workers=self.workers,
            prefetch_factor=self.prefetch if self.workers else None,
            pin_memory=self.pin_memory,
            # Its own generator: torch draws the workers' seed from it, and the global one is saved
            # and restored by training, bit for bit.
            generator=torch.Generator(),
            worker_init_fn=worker.begin,
        )
        for loaded in loader:
            if loaded.batch is not None:
                loaded = replace(loaded, batch=_tensors(loaded.batch))
            if loaded.place is not None:
                pixels = slots.take(loaded.place, self.pin_memory)
                loaded = replace(loaded, batch=replace(loaded.batch, pixels=pixels), place=None)
            yield loaded


_SMALL = ("index", "label", "flip")


def _arrays(batch: LoadedBatch) -> LoadedBatch:
    """Small tensors as arrays, which are pickled; torch would open shared memory for each."""
    small = {name: getattr(batch, name) for name in _SMALL}
    return replace(batch, **{n: x.numpy() for n, x in small.items() if x is not None})


def _tensors(batch: LoadedBatch) -> LoadedBatch:
    """What `_arrays` changed, as tensors again."""
    small = {name: getattr(batch, name) for name in _SMALL}
    back = {n: torch.from_numpy(x) for n, x in small.items() if isinstance(x, np.ndarray)}
    return replace(batch, **back)
