"""Streams -> batches. What a batch holds depends on the lanes, not on workers or processes.

A global batch of B rows takes the next B/L rows of each of the L lanes, in order of lane. A rank
owns a contiguous share of the lanes and each of its workers a contiguous share of those, so their
parts join to the same batch however many they are, and a run may resume with other numbers of both.

Workers read ahead, so a lane's position travels with the rows that led to it: the places after the
batch that was used last are the state of a run. (torchdata's StatefulDataLoader is not used: its
state belongs to one number of workers and one of processes.)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from vistok.config import ConfigError
from vistok.data.base import DataError
from vistok.data.batch import LoadedBatch
from vistok.data.loading import workers as worker
from vistok.data.loading.collate import Collate, Row, mirrored
from vistok.data.loading.quarantine import Quarantine
from vistok.data.loading.shared_memory import (
    AHEAD,
    SPARE,
    batch_bytes,
    check_room,
    told_as_shortage,
)
from vistok.data.loading.stream import Found, Lane, Stream

Positions = Mapping[str, Mapping[str, int]]

log = logging.getLogger(__name__)


class StreamLoader:
    """Batches of optimizer steps start_step .. steps-1 of a stream, this rank's rows of each.

    Args:
        stream: what is read.
        batch_size: the global batch of an optimizer step.
        seed: keys the order, crops and mirroring.
        lanes: their number; None = the stream's own, else processes x workers.
        positions: `.positions` of all ranks' loaders after step start_step - 1, joined; None at
            the start.
        steps, start_step, workers, rank, world, folder, max_bad_share, pin_memory, prefetch: as
            in `TrainLoader`; every broken sample counts.

    `.positions`: {lane: place}, JSON, of this rank's lanes after the batch that was yielded last.
    `.wait`: seconds that the caller has spent waiting for batches so far.
    """

    def __init__(
        self,
        stream: Stream,
        batch_size: int,
        seed: int,
        *,
        steps: int,
        start_step: int = 0,
        lanes: int | None = None,
        positions: Positions | None = None,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
        folder: str | Path | None = None,
        max_bad_share: float = 0.01,
        pin_memory: bool = False,
        prefetch: int = AHEAD,
    ) -> None:
        readers = world * max(workers, 1)
        self.lanes = lanes or stream.lanes or readers
        _check(self.lanes, stream, batch_size, readers, world)
        share = self.lanes // world
        mine = range(rank * share, (rank + 1) * share)
        if start_step and positions is None:
            raise DataError(f"a stream resumes at step {start_step} from positions; got none")
        self.positions: dict[str, dict[str, int]] = {}
        for lane in mine if positions else ():
            if str(lane) not in positions:
                raise DataError(
                    f"no position of lane {lane} of {self.lanes}; expected one for each lane"
                )
            self.positions[str(lane)] = dict(positions[str(lane)])
        self.wait, self._steps = 0.0, range(start_step, steps)
        self._parts, self._pin = max(workers, 1), pin_memory
        self._quarantine = Quarantine(folder, max_bad_share)
        self._empty: set[str] = set()
        part = batch_bytes(stream, batch_size // readers)  # of one worker
        check_room(workers * (prefetch + SPARE) * part, workers)
        rows = _Rows(stream, seed, self.lanes, mine, batch_size // self.lanes, len(self._steps))
        rows.positions = dict(self.positions)
        self._torch = DataLoader(
            rows,
            batch_size=None,
            num_workers=workers,
            prefetch_factor=prefetch if workers else None,
            generator=torch.Generator(),  # see `loader`: the global one is left alone
            worker_init_fn=worker.beginning(),
        )

    def __len__(self) -> int:
        """Batches of one iteration."""
        return len(self._steps)

    def __iter__(self) -> Iterator[LoadedBatch]:
        started = time.perf_counter()
        parts: list[_Part] = []
        read = iter(self._torch)  # of worker 0, 1, ..., 0, 1, ...: torch keeps the order
        while True:
            with told_as_shortage():
                part = next(read, None)
            if part is None:
                return
            self._note(part)
            parts.append(part)
            if len(parts) < self._parts:
                continue
            batch = _join([part.batch for part in parts], self._pin)
            self.wait += time.perf_counter() - started
            for part in parts:
                self.positions |= part.positions
            parts = []
            yield batch
            started = time.perf_counter()

    def _note(self, part: _Part) -> None:
        for name in sorted(part.empty - self._empty):
            log.warning("shard %s has no samples", name)
        self._empty |= part.empty
        if part.error is not None:
            raise DataError(part.error)
        self._quarantine.count(part.rows + len(part.bad), len(part.bad), part.bad)


def _check(lanes: int, stream: Stream, batch_size: int, readers: int, world: int) -> None:
    """ConfigError, with numbers that work, unless lanes, shards, batch and readers fit."""
    if lanes > stream.shards:
        raise ConfigError(
            f"data.lanes: {lanes} lanes for {stream.shards} shards; a lane needs a shard of its "
            f"own: use at most {stream.shards} lanes (processes x workers), or cut the data into "
            f"more shards"
        )
    if lanes % readers:
        good = [n for n in range(1, lanes // world + 1) if lanes % (world * n) == 0]
        advice = (
            f"use workers={' or '.join(map(str, good))}"
            if good
            else f"use a number of processes that divides {lanes}"
        )
        raise ConfigError(
            f"workers: {lanes} lanes do not split over {world} processes x {readers // world} "
            f"workers; {advice}, or start anew with data.lanes={readers}"
        )
    if batch_size % lanes:
        below = batch_size - batch_size % lanes
        raise ConfigError(
            f"batch_size: {batch_size} rows do not split over {lanes} lanes; use "
            + " or ".join(str(n) for n in (below, below + lanes) if n)
        )


@dataclass(frozen=True)
class _Part:
    """A worker's rows of a step. Errors travel as values, as in `loader`."""

    batch: LoadedBatch | None
    positions: dict[str, dict[str, int]]  # of its lanes, after these rows
    rows: int
    bad: list[tuple[str, str]]
    empty: set[str]
    error: str | None = None


class _Rows(IterableDataset):
    """A reader's rows, step by step; torch's iterable data set, copied into each worker."""

    positions: Positions

    def __init__(
        self, stream: Stream, seed: int, lanes: int, mine: range, rows: int, steps: int
    ) -> None:
        self.stream, self.seed, self.lanes, self.mine = stream, seed, lanes, mine
        self.rows, self.steps, self.collate = rows, steps, Collate(stream)

    def __iter__(self) -> Iterator[_Part]:
        worker = get_worker_info()
        mine: Sequence[int] = self.mine
        if worker is not None:
            share = len(mine) // worker.num_workers
            mine = mine[worker.id * share : (worker.id + 1) * share]
        lanes: list[Lane] = []
        try:
            for lane in mine:
                place = self.positions.get(str(lane))
                lanes.append(Lane(self.stream, lane, self.lanes, self.seed, place))
            for _ in range(self.steps):
                yield self._step(lanes)
        except DataError as error:
            yield _Part(None, {}, 0, [], _empty(lanes), str(error))
        finally:
            for lane in lanes:  # Arrow's threads must not outlive the interpreter
                lane.close()

    def _step(self, lanes: list[Lane]) -> _Part:
        found = [lane.next() for lane in lanes for _ in range(self.rows)]
        bad = [item for one in found for item in one.bad]
        rows = [Row(one.sample, self._mirrored(one), ()) for one in found]
        places = {str(lane.lane): lane.position for lane in lanes}
        loaded = self.collate(rows)
        return _Part(loaded.batch, places, len(rows), bad, _empty(lanes), loaded.error)

    def _mirrored(self, one: Found) -> bool:
        return mirrored(self.stream, self.seed, one.epoch, one.sample.index)


def _empty(lanes: list[Lane]) -> set[str]:
    return set().union(*(lane.empty for lane in lanes))


def _join(batches: list[LoadedBatch], pin: bool) -> LoadedBatch:
    """The parts one after another; pinned, their tensors are laid in page-locked memory."""
    joined: dict[str, Any] = {}
    for name in (field.name for field in fields(LoadedBatch)):
        values = [getattr(batch, name) for batch in batches]
        if isinstance(values[0], Tensor):
            joined[name] = torch.cat(values) if len(values) > 1 else values[0]
            if pin and name != "index":
                joined[name] = joined[name].pin_memory()
        elif isinstance(values[0], tuple):
            joined[name] = sum(values, ())
        elif values[0] is not None:
            raise TypeError(f"streams of {name} cannot be joined yet")
    return replace(batches[0], **joined)
