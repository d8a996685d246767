"""Random access to the rows of parquet shards, row group by row group.

A row group is the smallest thing parquet can read, so the ones used last are kept, up to a limit of
bytes a process. Handles are opened by the process that uses them: a fork would share them.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vistok.core.regular_files import check_regular
from vistok.data.base import BadSample, DataError, one_line
from vistok.data.kinds.patterns import matches


@dataclass(frozen=True)
class Shard:
    """One parquet file: path, bytes, and the rows of each row group."""

    path: Path
    size: int
    groups: tuple[int, ...]


def find(patterns: str | tuple[str, ...]) -> list[Path]:
    """The files of some paths or globs, each pattern's matches sorted bytewise."""
    found: list[Path] = []
    for pattern in (patterns,) if isinstance(patterns, str) else patterns:
        names = matches(pattern)
        if not names:
            raise DataError(
                f"data.parquet {pattern}: no such file; expected a parquet file or a glob like "
                f"folder/train-*.parquet"
            )
        found += [Path(name) for name in names if Path(name) not in found]
    return found


class ParquetShards:
    """The rows of `paths` one after another; `columns` are read, nothing else."""

    def __init__(self, paths: list[Path], columns: list[str], cache_mb: int) -> None:
        self.columns, self._limit = columns, cache_mb * 2**20
        self.shards = [self._survey(path) for path in paths]
        self._of = [(s, g) for s, shard in enumerate(self.shards) for g in range(len(shard.groups))]
        rows = [count for shard in self.shards for count in shard.groups]
        self._starts = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])
        whole = [sum(shard.groups) for shard in self.shards]
        self._firsts = np.concatenate([[0], np.cumsum(whole, dtype=np.int64)])
        self._forget()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def name(self, row: int) -> str:
        """`file.parquet[row in that file]`."""
        shard = int(np.searchsorted(self._firsts, row, "right")) - 1
        return f"{self.shards[shard].path.name}[{row - int(self._firsts[shard])}]"

    def row(self, row: int) -> dict[str, Any]:
        """The row's columns as Python values; BadSample if its row group cannot be read."""
        group = int(np.searchsorted(self._starts, row, "right")) - 1
        table = self._group(group, row)
        place = row - int(self._starts[group])
        return {name: table.column(name)[place].as_py() for name in self.columns}

    def _survey(self, path: Path) -> Shard:
        file = self._open(path)
        columns = file.schema_arrow.names
        for column in self.columns:
            if column not in columns:
                raise DataError(
                    f"data.parquet {path}: no column '{column}'; it has {', '.join(columns)}: "
                    f"set image_column or label_column (null: unlabeled)"
                )
        meta = file.metadata
        groups = tuple(meta.row_group(g).num_rows for g in range(meta.num_row_groups))
        file.close()
        return Shard(path, path.stat().st_size, groups)

    @staticmethod
    def _open(path: Path) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            check_regular(path)
            return pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"data.parquet {path}: cut off or damaged shard ({one_line(error)}); fetch it "
                f"again, or leave it out of the list"
            ) from None

    def _group(self, group: int, row: int) -> Any:
        import pyarrow as pa

        if self._pid != os.getpid():
            self._forget()
        if group in self._tables:
            self._tables.move_to_end(group)
            return self._tables[group]
        number, place = self._of[group]
        if number not in self._files:
            try:
                self._files[number] = self._open(self.shards[number].path)
            except DataError as error:  # gone since it was opened first
                raise BadSample(self.name(row), str(error)) from None
        try:
            table = self._files[number].read_row_group(place, self.columns, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise BadSample(self.name(row), f"damaged row group {place} ({error})") from None
        self._tables[group] = table
        self._bytes += table.nbytes
        while self._bytes > self._limit and len(self._tables) > 1:
            self._bytes -= self._tables.popitem(last=False)[1].nbytes
        return table

    def _forget(self) -> None:
        self._pid, self._bytes = os.getpid(), 0
        self._files: dict[int, Any] = {}
        self._tables: OrderedDict[int, Any] = OrderedDict()

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_pid": -1, "_bytes": 0, "_files": {}, "_tables": OrderedDict()}
