"""Samples -> batches. What a batch holds depends on the order alone, not on workers or processes.

Training: a broken sample is noted in the quarantine, and its row is filled by the next good sample
of the order (which is thus seen twice); every other row stays where it is, so a resume still needs
no more than the step. Evaluation: every sample once, in order; a broken one is an error.
Pixels travel as uint8; `to_device` makes them floats in 0..1 and mirrors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from vistok.core.errors import UserError
from vistok.data.base import BadSample, DataError, Dataset, one_line
from vistok.data.batch import LoadedBatch
from vistok.data.loading import workers as worker
from vistok.data.loading.collate import LeaveOut, Loaded, Row, as_tensors, collate_of, mirrored
from vistok.data.loading.quarantine import Quarantine
from vistok.data.loading.shared_buffers import SharedBuffers
from vistok.data.loading.shared_memory import (
    AHEAD,
    SPARE,
    batch_bytes,
    check_room,
    told_as_shortage,
)
from vistok.data.order import Order, eval_indices

_TRIES = 64  # bad samples in a row after which a data set is taken to be broken as a whole


class TrainLoader:
    """Batches of optimizer steps start_step .. steps-1, this rank's rows of each.

    Args:
        dataset: what is read.
        order: who sees which sample when; its seed also keys crops and mirroring.
        steps: the step at which training ends.
        start_step: the step to begin (or resume) at, at no cost.
        workers: processes that read; 0 = this one. Batches are the same.
        rank, world: this process and how many there are.
        folder: where `quarantine.jsonl` and `remarks.jsonl` are kept; None = they are only logged.
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
        prefetch: int = AHEAD,
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
            self._quarantine.remark(loaded.notes)
            if loaded.error is not None:
                raise DataError(loaded.error)
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
    a `BadSample` error: a number over fewer images than it claims would be worthless. Training,
    which a broken validation sample must not end, says how many it leaves out: `left_out` is then
    given their (name, reason), batch by batch. `only`: numbers of the samples that are meant
    instead of all, among which `start` counts.
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
        prefetch: int = AHEAD,
        left_out: Callable[[list[tuple[str, str]]], object] | None = None,
        only: Sequence[int] | None = None,
    ) -> None:
        whole = len(dataset) if only is None else len(only)
        self.count = whole if limit is None else min(limit, whole)  # over all ranks
        self._quarantine = Quarantine(None, 0.0)
        self._batches = eval_indices(self.count, batch_size, rank, world, start)
        if only is not None:
            self._batches = [[int(only[place]) for place in row] for row in self._batches]
        self._left_out = left_out
        self._read = _Reader(
            _EvalRows(dataset),
            self._batches,
            batch_size,
            dataset,
            workers,
            pin_memory,
            prefetch,
            leave_out=left_out is not None,
        )

    def __len__(self) -> int:
        """Batches of this rank."""
        return len(self._batches)

    def __iter__(self) -> Iterator[LoadedBatch]:
        for loaded in self._read:
            if loaded.bad:
                if self._left_out is None:
                    raise BadSample(*loaded.bad[0])
                self._left_out(loaded.bad)
            self._quarantine.remark(loaded.notes)
            if loaded.error is not None:
                raise DataError(loaded.error)
            if loaded.batch is not None:
                yield loaded.batch


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
            except UserError as error:
                return Row(None, False, tuple(bad), one_line(error))
            return Row(sample, mirrored(self.dataset, self.order.seed, epoch, index), tuple(bad))
        return Row(None, False, tuple(bad))


class _EvalRows:
    """Data set index -> row; torch's map-style data set."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> Row:
        try:
            return Row(self.dataset.sample(index), False, ())
        except BadSample as error:
            return Row(None, False, ((error.name, error.reason),))
        except UserError as error:
            return Row(None, False, (), one_line(error))


class _Batches:
    """Positions of each step, computed when asked for; torch's batch sampler."""

    def __init__(self, order: Order, steps: range, rank: int, world: int) -> None:
        self.order, self.steps, self.rank, self.world = order, steps, rank, world

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            yield list(self.order.positions(step, self.rank, self.world))


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
    leave_out: bool = False  # rows without a sample; else such a batch is None

    def __iter__(self) -> Iterator[Loaded]:
        buffers, size = None, batch_bytes(self.dataset, self.size)
        check_room(self.workers * (self.prefetch + SPARE) * size, self.workers)
        if self.workers and self.dataset.sides is not None and self.dataset.spec is None:
            with told_as_shortage():
                buffers = SharedBuffers(self.workers, self.prefetch, size)
        collate = collate_of(self.dataset, buffers)
        loader = DataLoader(
            self.rows,
            batch_sampler=self.batches,
            collate_fn=LeaveOut(collate) if self.leave_out else collate,
            num_workers=self.workers,
            prefetch_factor=self.prefetch if self.workers else None,
            pin_memory=self.pin_memory,
            # Its own generator: torch draws the workers' seed from it, and the global one is saved
            # and restored by training, bit for bit.
            generator=torch.Generator(),
            worker_init_fn=worker.beginning(),
        )
        batches = iter(loader)
        while True:
            with told_as_shortage():
                loaded = next(batches, None)
            if loaded is None:
                return
            if loaded.batch is not None:
                loaded = replace(loaded, batch=as_tensors(loaded.batch))
            if loaded.place is not None:
                pixels = buffers.take(loaded.place, self.pin_memory)
                loaded = replace(loaded, batch=replace(loaded.batch, pixels=pixels), place=None)
            yield loaded
