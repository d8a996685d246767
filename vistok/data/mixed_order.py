"""The order of training samples of a mix: which data set each step reads, and what of it.

Step s reads the data set that a keyed draw picks by weight; of each data set the steps that picked
it take one batch after the other of its own endless order. So the batches of a data set are the
same whatever the others do between them, and a resume needs no more than the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vistok.core.rng import Rng
from vistok.data.kinds.mix import MixedDataset
from vistok.data.order import Order

_BLOCK = 4096  # steps whose draws are made at once
_FAR = 2**48  # positions of one data set, in the numbering of all


class MixedOrder(Order):
    """Order over several data sets; a position is that of a data set plus its number times 2^48.

    Args:
        counts: samples of each data set. weights: how often each is read, in proportion.
    """

    def __init__(
        self, counts: Sequence[int], weights: Sequence[float], batch_size: int, seed: int
    ) -> None:
        super().__init__(sum(counts), batch_size, seed)
        self._orders = [
            Order(count, batch_size, Rng(seed, f"mix/{number}").torch_seed())
            for number, count in enumerate(counts)
        ]
        self._firsts = [sum(counts[:number]) for number in range(len(counts))]
        self._shares = np.cumsum(weights) / np.sum(weights)
        self._read = [np.zeros(len(counts), np.int64)]  # batches of each before each block

    def at(self, position: int) -> tuple[int, int]:
        number, place = divmod(position, _FAR)
        epoch, index = self._orders[number].at(place)
        return epoch, self._firsts[number] + index

    def positions(self, step: int, rank: int = 0, world: int = 1) -> range:
        number, read = self.chosen(step)
        found = self._orders[number].positions(read, rank, world)
        return range(number * _FAR + found.start, number * _FAR + found.stop)

    def chosen(self, step: int) -> tuple[int, int]:
        """(number of the data set that a step reads, batches that earlier steps took of it)."""
        block, place = divmod(step, _BLOCK)
        while len(self._read) <= block:
            drawn = np.bincount(self._drawn(len(self._read) - 1), minlength=len(self._orders))
            self._read.append(self._read[-1] + drawn)
        drawn = self._drawn(block)
        number = int(drawn[place])
        return number, int(self._read[block][number] + (drawn[:place] == number).sum())

    def _drawn(self, block: int) -> np.ndarray:
        draws = Rng(self.seed, "mix", block).generator().random(_BLOCK)
        found = np.searchsorted(self._shares, draws, side="right")
        return found.clip(max=len(self._orders) - 1)


def order_of(data: Any, batch_size: int, seed: int) -> Order:
    """The order in which training reads a data set, or the sets of a mix."""
    if isinstance(data, MixedDataset):
        counts = [len(one) for one in data.sets]
        return MixedOrder(counts, data.weights, batch_size, seed)
    return Order(len(data), batch_size, seed)
