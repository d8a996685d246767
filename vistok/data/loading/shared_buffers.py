"""Shared memory that carries pixels from worker processes to the one that trains, used again.

torch's own way makes fresh shared memory for every batch, and the machine pays for each new page of
it, twice; beside decoding small images that is a third of the work. Here each worker has a few
buffers for whole batches, of images or clips, made once. It writes its k-th batch into buffer k
modulo their number and sends the place; the receiver copies the pixels out. A buffer is free again
by then, as a worker is never asked for more than `prefetch` batches ahead; that this holds is
checked at every batch by a number beside the buffer, so a wrong guess would be an error, never a
wrong batch.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from vistok.data.loading.shared_memory import SPARE

_KEPT = 4  # batches whose memory the receiver uses again


@dataclass(frozen=True)
class Place:
    """Place of a batch of pixels: its buffer, the number of the batch in it, and its shape."""

    buffer: int
    number: int
    shape: tuple[int, ...]  # (B, 3, H, W) or (B, 3, T, H, W)


class SharedBuffers:
    """Shared memory for `prefetch` + 2 batches of `size` bytes of each worker."""

    def __init__(self, workers: int, prefetch: int, size: int) -> None:
        self.each = prefetch + SPARE
        self._memory = torch.empty(workers * self.each, size, dtype=torch.uint8).share_memory_()
        self._numbers = torch.full((workers * self.each,), -1, dtype=torch.int64).share_memory_()
        self._count, self._kept = 0, _Kept()

    def put(self, pixels: list[Tensor]) -> Place | None:
        """In a worker: stack pixels [3, (T,) H, W] uint8 of one shape into the next buffer.

        None if they do not fit, or this is no worker: then they travel torch's way.
        """
        info, shape = get_worker_info(), (len(pixels), *pixels[0].shape)
        size = pixels[0].numel() * len(pixels)
        if info is None or size > self._memory.shape[1] or pixels[0].dtype != torch.uint8:
            return None
        buffer = info.id * self.each + self._count % self.each
        self._numbers[buffer] = -1
        torch.stack(pixels, out=self._memory[buffer, :size].view(shape))
        self._numbers[buffer] = self._count
        place = Place(buffer, self._count, shape)
        self._count += 1
        return place

    def take(self, place: Place, pin: bool = False) -> Tensor:
        """In the receiver: a copy of the batch, page-locked if asked."""
        if pin:  # torch keeps page-locked memory for the next batch by itself
            pixels = torch.empty(place.shape, dtype=torch.uint8, pin_memory=True)
        else:
            pixels = self._kept.empty(place.shape)
        # By numpy, in this thread: torch would split the copy over threads that then spin on cores
        # which the workers decode on.
        source = self._memory[place.buffer, : pixels.numel()].numpy()
        np.copyto(pixels.numpy(), source.reshape(place.shape))
        if int(self._numbers[place.buffer]) != place.number:
            raise RuntimeError(
                f"buffer {place.buffer} holds batch {int(self._numbers[place.buffer])}; expected "
                f"{place.number}: a worker ran ahead of its reader"
            )
        return pixels


class _Kept:
    """Memory of batches that nobody holds any more; a fresh batch would be paid for page by page.

    A tensor made from an array keeps a reference to the array for as long as any view of it lives,
    so the count of references tells whether the array is free.
    """

    def __init__(self) -> None:
        self._arrays: list[np.ndarray] = []

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        """An uninitialized uint8 tensor that shares memory with no tensor in use."""
        size = math.prod(shape)
        for array in self._arrays:
            # Held by the list, the loop's name and the call itself: by nobody else.
            if array.size == size and sys.getrefcount(array) == 3:
                return torch.from_numpy(array).view(shape)
        array = np.empty(size, np.uint8)
        self._arrays = [array, *self._arrays[: _KEPT - 1]]
        return torch.from_numpy(array).view(shape)
