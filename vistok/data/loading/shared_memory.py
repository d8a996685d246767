"""Shared memory between worker processes and the one that trains: is there enough of it?

Batches travel through /dev/shm, which containers make small (Docker's default is 64 MB). Where it
is full, a worker is killed in the middle of a write, or its batch never arrives; so the room is
looked at before the first batch, and a failure later is told as what it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace

from torch import Tensor

from vistok.core.records import Condition
from vistok.data.base import DataError, one_line
from vistok.data.batch import LoadedBatch, map_tensors
from vistok.tokens import Tokens

_PLACE = "/dev/shm"
_REMEDY = (
    "use fewer workers (workers=0 needs none of it) or a smaller batch, or make it larger "
    "(docker run --shm-size=8g, --ipc=host)"
)


def check_room(size: int, workers: int) -> None:
    """DataError unless /dev/shm has `size` bytes left, which `workers` processes will fill.

    Systems without /dev/shm are not asked.
    """
    try:
        place = os.statvfs(_PLACE)
    except OSError:
        return
    free = place.f_bavail * place.f_frsize
    if size > free:
        fitting = free * workers // size
        advice = f"workers={fitting} fits, or " if fitting else ""
        raise DataError(
            f"{_PLACE}: {_megabytes(free)} of shared memory are free, and {workers} workers need "
            f"{_megabytes(size)} for their batches; {advice}{_REMEDY}"
        )


@contextmanager
def told_as_shortage() -> Iterator[None]:
    """torch's errors of lost workers and refused shared memory become a DataError of one line."""
    try:
        yield
    except RuntimeError as error:
        text = one_line(error)
        if "shared memory" in text or "Bus error" in text:
            raise shortage(text) from None
        if "DataLoader worker" in text and "killed by signal" in text:
            raise DataError(
                f"a worker process was killed from outside ({text}); if memory ran out, use fewer "
                "workers or a smaller batch"
            ) from None
        raise


def shortage(reason: str) -> DataError:
    """The error of shared memory that was refused, in one line."""
    return DataError(f"{_PLACE}: shared memory ran out ({reason}); {_REMEDY}")


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


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.0f} MB" if size >= 2**20 else f"{size / 2**20:.2g} MB"
