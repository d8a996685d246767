"""Data that is read front to back: shards, lanes, and positions from which reading resumes.

A stream is cut into L *lanes*. Shards are laid end to end without end, each epoch in its own keyed
order; reading one of them is a *visit*. Visits are given to the lanes round-robin: lane l makes
visits l, l + L, l + 2L, ..., so an epoch's shards are read once each and no lane gets ahead. Inside
a lane samples are shuffled by blocks: `shuffle` consecutive samples are read, undecoded, and given
out in a keyed order; a block never spans two epochs.

A lane's position is three numbers: the visit and byte (or row) at which its block began, and how
many of the block were taken. Resuming reads one block again, decodes none of it, and is exact.
Which process reads which lane is decided by the loader (`stream_loader`), and changes nothing.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np

from vistok.config.contract import required
from vistok.core.rng import Rng
from vistok.data.base import BadSample, DataError, Facts, Sample

_TRIES = 1000  # bad samples in a row after which a lane is taken to be broken as a whole
_OFFSET_BITS = 40


@dataclass(frozen=True)
class Entry:
    """One sample of a shard, undecoded.

    offset: its byte (or row); after: that of the next one, None if nothing can follow.
    content: the input of `Stream.decode`, or why it cannot be used.
    """

    offset: int
    after: int | None
    content: Any | BadSample


class Stream(Facts):
    """Base of the streams; a subclass gives `read`, `decode`, `name` and `record`."""

    count: int
    """Samples of an epoch, broken ones included."""
    shards: int
    """Number of shards."""
    shuffle: int = 1024
    """Samples of a block; 0 or 1 = samples stay in the order of their shard."""
    lanes: int | None = None
    """Number of lanes; None = the loader decides."""

    @required
    def read(self, shard: int, offset: int = 0) -> Generator[Entry]:
        """The samples of a shard from `offset` on. DataError if the shard cannot be reached."""
        raise NotImplementedError

    @required
    def decode(self, content: Any, index: int, epoch: int, seed: int) -> Sample:
        """The sample, as `Dataset.sample` would give it; BadSample if it is unusable."""
        raise NotImplementedError

    @required
    def name(self, shard: int) -> str:
        """The name of a shard in messages."""
        raise NotImplementedError

    def __len__(self) -> int:
        return self.count


@dataclass(frozen=True)
class Found:
    """The next good sample of a lane, and the bad samples before it."""

    sample: Sample
    epoch: int
    bad: tuple[tuple[str, str], ...]  # (name, reason)


class Lane:
    """One of the `lanes` parts of a stream, without end.

    `position` is JSON and says where the lane stands after the samples taken so far; a lane made
    with it resumes exactly there. `.empty`: names of shards that had no sample at all.
    """

    def __init__(
        self,
        stream: Stream,
        lane: int,
        lanes: int,
        seed: int,
        position: dict[str, int] | None = None,
    ) -> None:
        self.stream, self.lane, self.lanes, self.seed = stream, lane, lanes, seed
        self.empty: set[str] = set()
        self._orders: dict[int, np.ndarray] = {}
        self._visit, self._offset = lane, 0  # where reading continues
        self._reader: Generator[Entry] | None = None
        self._block: list[tuple[int, int, Entry]] = []  # (epoch, shard, entry)
        self._start, self._taken = (self._visit, self._offset), 0
        if position is not None:
            self._visit, self._offset = position["visit"], position["offset"]
            self._start = (self._visit, self._offset)
            if position["taken"]:
                self._fill()
                self._taken = position["taken"]
                if self._taken > len(self._block):
                    raise DataError(
                        f"lane {lane}: {self._taken} samples were taken from a block that has "
                        f"{len(self._block)} now; the shards changed since: put them back"
                    )

    @property
    def position(self) -> dict[str, int]:
        if self._taken < len(self._block):
            visit, offset = self._start
            return {"visit": visit, "offset": offset, "taken": self._taken}
        return {"visit": self._visit, "offset": self._offset, "taken": 0}

    def next(self) -> Found:
        """The next good sample; DataError if none can be found."""
        bad: list[tuple[str, str]] = []
        while len(bad) < _TRIES:
            if self._taken == len(self._block):
                self._fill()
            epoch, shard, entry = self._block[self._taken]
            self._taken += 1
            try:
                if isinstance(entry.content, BadSample):
                    raise entry.content
                index = shard << _OFFSET_BITS | entry.offset
                sample = self.stream.decode(entry.content, index, epoch, self.seed)
            except BadSample as error:
                bad.append((error.name, error.reason))
                continue
            return Found(sample, epoch, tuple(bad))
        name, reason = bad[-1]
        raise DataError(
            f"{_TRIES} samples in a row cannot be used, the last is {name}: {reason}; check the "
            f"data set"
        )

    def close(self) -> None:
        """Close the shard that is open."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _fill(self) -> None:
        """Read the next block: what follows, up to `shuffle` samples of one epoch."""
        size = max(1, self.stream.shuffle)
        self._start, self._taken, self._block = (self._visit, self._offset), 0, []
        empty: set[int] = set()
        while len(self._block) < size:
            epoch, shard = self._at(self._visit)
            if self._block and self._block[0][0] != epoch:
                break
            if self._reader is None:
                self._reader = self.stream.read(shard, self._offset)
            entry = next(self._reader, None)
            if entry is not None:
                self._block.append((epoch, shard, entry))
            if entry is not None and entry.after is not None:
                self._offset = entry.after
                continue
            if entry is None and self._offset == 0:
                self.empty.add(self.stream.name(shard))
                empty.add(shard)
            self._visit, self._offset, self._reader = self._visit + self.lanes, 0, None
            if not self._block and len(empty) == self.stream.shards:
                raise DataError(
                    f"no sample in any of the {len(empty)} shards (the last is "
                    f"{self.stream.name(shard)}); expected at least one"
                )
        if size > 1:
            visit, offset = self._start
            draws = Rng(self.seed, f"block/{self.lane}", visit).generator(offset)
            self._block = [self._block[i] for i in draws.permutation(len(self._block))]

    def _at(self, visit: int) -> tuple[int, int]:
        """(epoch, shard) of a visit."""
        epoch, place = divmod(visit, self.stream.shards)
        if epoch not in self._orders:
            while len(self._orders) > 1:
                del self._orders[min(self._orders)]
            draws = Rng(self.seed, "shards", epoch).generator()
            self._orders[epoch] = draws.permutation(self.stream.shards)
        return epoch, int(self._orders[epoch][place])
