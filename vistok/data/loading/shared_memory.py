"""Shared memory between worker processes and the one that trains: is there enough of it?

Batches travel through /dev/shm, which containers make small (Docker's default is 64 MB). Where it
is full, a worker is killed in the middle of a write, or its batch never arrives; so the room is
looked at before the first batch, and a failure later is told as what it is.
"""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace

import torch
from torch import Tensor

from vistok.core.records import Condition
from vistok.data.base import DataError, Facts, one_line
from vistok.data.batch import LoadedBatch, map_tensors
from vistok.tokens import Tokens

AHEAD = 2  # batches that each worker reads ahead, unless told otherwise
SPARE = 2  # batches beyond those: the one that is being copied, and one in reserve
_PLACE = "/dev/shm"
# torch's words where shared memory, or a handle of it, is refused. GPUs have a memory of this name.
_SHORT = ("file </torch_", "object </torch_", "shared memory limit", "Bus error")
_HANDLES = ("Too many open files", "ancdata")
_REMEDY = (
    "use fewer workers (workers=0 needs none of it) or a smaller batch, or make it larger "
    "(docker run --shm-size=8g, --ipc=host)"
)


def batch_bytes(data: Facts, rows: int) -> int:
    """Bytes of a batch of `rows` samples on their way from a worker, but for a few per row."""
    if data.sets:
        return max(batch_bytes(one, rows) for one in data.sets)
    found = 0 if data.sides is None else 3 * math.prod(data.sides) * (1 + data.targets)
    if data.spec is not None:
        values = data.spec.length * (len(data.spec.vocab) or data.spec.dim)
        kind = Tokens.dtype(data.spec) if data.spec.vocab else torch.float32
        found = values * kind.itemsize
    found += sum(4 * math.prod(shape) for shape in data.features.values())
    return rows * found


def check_room(size: int, workers: int) -> None:
    """DataError unless /dev/shm has `size` bytes left, which `workers` processes will fill, and
    takes their locks.

    Systems without /dev/shm are not asked for its size.
    """
    try:  # at least as many as torch makes, which fails in the middle of it
        locks = [multiprocessing.Lock() for _ in range(4 * workers + 8 if workers else 0)]
        del locks
    except OSError as error:
        raise shortage(one_line(error)) from None
    try:
        place = os.statvfs(_PLACE)
    except OSError:
        return
    free = place.f_bavail * place.f_frsize
    if size > free:
        fitting = free * workers // size
        advice = f"workers={fitting} fits, or " if fitting else ""
        raise DataError(
            f"{_PLACE}: {free / 2**20:.1f} MB of shared memory are free; the batches of "
            f"workers={workers} need {size / 2**20:.1f} MB: {advice}{_REMEDY}"
        )


@contextmanager
def told_as_shortage() -> Iterator[None]:
    """torch's errors of lost workers and refused shared memory become a DataError of one line.

    They come from where a batch is waited for, or (a signal tells of a lost worker) from anywhere.
    """
    try:
        yield
    except RuntimeError as error:
        # What the signal was is said by the first error, which torch may raise another one from.
        text = one_line(error.__cause__ if isinstance(error.__cause__, RuntimeError) else error)
        if any(words in text for words in (*_SHORT, *_HANDLES)):
            raise shortage(text) from None
        if text.startswith("DataLoader worker"):
            raise DataError(
                f"a worker process was killed from outside ({text}); if memory ran out, use fewer "
                "workers or a smaller batch"
            ) from None
        raise


def shortage(reason: str) -> DataError:
    """The error of shared memory that the system refused, in one line."""
    if any(words in reason for words in _HANDLES):
        return DataError(
            f"too many open files ({reason}); allow more (ulimit -n 65536), or use fewer workers"
        )
    return DataError(f"{_PLACE}: shared memory is refused ({reason}); {_REMEDY}")


def shared(batch: LoadedBatch) -> LoadedBatch:
    """In a worker: the batch, with its tensors in shared memory; DataError if that is refused.

    torch would do it where nobody sees the error: in a thread that only prints it, while the
    receiver waits for a batch that never comes.
    """
    moved = {}
    try:
        for name in (field.name for field in fields(batch)):
            value = getattr(batch, name)
            if isinstance(value, Tensor):
                moved[name] = value.share_memory_()
            elif isinstance(value, Condition):
                moved[name] = map_tensors(value, Tensor.share_memory_)
            elif isinstance(value, Tokens):
                held = {n: getattr(value, n) for n in ("indices", "values")}
                held = {n: x.share_memory_() for n, x in held.items() if x is not None}
                moved[name] = replace(value, **held)
    except RuntimeError as error:
        raise shortage(one_line(error)) from None
    return replace(batch, **moved)
