"""Decoded images kept in memory: one uint8 buffer for all, whatever their sizes.

One flat buffer is shared by forked workers for good; a list of arrays would be copied page by page
as reference counts change.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from vistok.data.base import BadSample


class Images:
    """Images [h, w, 3] uint8 by number, with their labels; a broken one keeps its reason."""

    def __init__(self, images: Iterable[tuple[np.ndarray, int] | BadSample]) -> None:
        buffer, starts, shapes, labels = bytearray(), [], [], []
        self._bad: dict[int, BadSample] = {}
        for number, item in enumerate(images):
            if isinstance(item, BadSample):
                self._bad[number] = item
                item = (np.empty((0, 0, 3), np.uint8), -1)
            starts.append(len(buffer))
            buffer += item[0].tobytes()
            shapes.append(item[0].shape)
            labels.append(item[1])
        self._buffer = np.frombuffer(buffer, np.uint8)
        self._starts = np.array(starts, np.int64)
        self._shapes, self._labels = np.array(shapes, np.int32), np.array(labels, np.int64)

    def __getitem__(self, number: int) -> tuple[np.ndarray, int]:
        if number in self._bad:
            raise BadSample(*self._bad[number].args)
        start, shape = self._starts[number], self._shapes[number]
        return (
            self._buffer[start : start + int(shape.prod())].reshape(shape),
            int(self._labels[number]),
        )
