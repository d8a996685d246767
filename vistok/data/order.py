"""The order of training samples: one global order, computed from (seed, position) alone.

The cursor counts samples since the start of training. Epochs are laid end to end, each a keyed
permutation of the data set; optimizer step s takes positions s*B .. (s+1)*B of that sequence, so
a batch may span the end of an epoch and nothing is ever dropped. A rank takes a contiguous share of
the batch: the global batch does not depend on the number of processes. Resuming costs nothing: the
position is the step.
"""

from __future__ import annotations

import numpy as np

from vistok.config import ConfigError
from vistok.core.errors import InputError
from vistok.core.rng import Rng


class Order:
    """The order of training samples over all epochs.

    Args:
        count: samples of the data set.
        batch_size: samples of an optimizer step, over all processes.
        seed: keys the permutations.
        shuffle: False keeps each epoch in the data set's own order.
    """

    def __init__(self, count: int, batch_size: int, seed: int, shuffle: bool = True) -> None:
        if count < 1:
            raise InputError(f"count={count}: an order needs at least one sample")
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size}: expected 1 or more")
        self.count, self.batch_size, self.seed, self.shuffle = count, batch_size, seed, shuffle
        self._epochs: dict[int, np.ndarray] = {}

    def at(self, position: int) -> tuple[int, int]:
        """(epoch, data set index) of the `position`-th sample of training."""
        epoch, place = divmod(position, self.count)
        return epoch, int(self._permutation(epoch)[place]) if self.shuffle else place

    def positions(self, step: int, rank: int = 0, world: int = 1) -> range:
        """The positions that `rank` of `world` takes in optimizer step `step`."""
        check_split(self.batch_size, world)
        share = self.batch_size // world
        start = step * self.batch_size + rank * share
        return range(start, start + share)

    def indices(self, step: int, rank: int = 0, world: int = 1) -> list[tuple[int, int]]:
        """[(epoch, index)] of the rank's rows of optimizer step `step`."""
        return [self.at(position) for position in self.positions(step, rank, world)]

    def epoch(self, step: int) -> float:
        """Passes over the data that are done before optimizer step `step`."""
        return step * self.batch_size / self.count

    def _permutation(self, epoch: int) -> np.ndarray:
        if epoch not in self._epochs:
            while len(self._epochs) > 1:  # a batch spans two epochs as a rule; keep no more
                del self._epochs[min(self._epochs)]
            kind = np.int32 if self.count < 2**31 else np.int64
            rows = np.arange(self.count, dtype=kind)
            self._epochs[epoch] = Rng(self.seed, "order", epoch).generator().permutation(rows)
        return self._epochs[epoch]

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_epochs": {}}  # workers compute their own


def check_split(batch_size: int, world: int, accumulate: int = 1) -> None:
    """ConfigError unless a global batch splits evenly over processes and their micro-batches."""
    share = world * accumulate
    if batch_size % share:
        raise ConfigError(
            f"batch_size={batch_size} does not split over {world} processes x "
            f"accumulate={accumulate}; use a multiple of {share}"
        )


def eval_indices(
    count: int, batch_size: int, rank: int = 0, world: int = 1, start: int = 0
) -> list[list[int]]:
    """The rank's batches of an evaluation: each index once over all ranks, nothing padded.

    Batches are cut from start..count-1 in order and given to the ranks round-robin, so that an
    image has the same neighbors whatever the number of processes. Ranks may get one batch more or
    less, and the last batch may be short: gather by `Batch.index`.
    """
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size}: expected 1 or more")
    firsts = range(start + rank * batch_size, count, world * batch_size)
    return [list(range(first, min(first + batch_size, count))) for first in firsts]
