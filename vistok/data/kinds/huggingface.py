"""Images through the Hugging Face `datasets` library: hub names, folders, local files.

- `path` is a folder (of files, or made by `save_to_disk`), a name on the hub (`hf:owner/name`), or
  a format (`parquet`, `arrow`, `webdataset`, `imagefolder`, `json`) with its files in `data_files`.
  Without `hf:` the hub is never asked: a folder that is not there must not be somebody's data set.
- Rows are taken as Arrow has them, so images are decoded here, by `images`, like all others.
- Labels are class numbers or class names. Class names are `classes`, or those of the data set's
  ClassLabel, or, without streaming, the strings that occur in the training split.
- Label -1, null or "" means unlabeled; with `need_label` such a row is a bad sample. A label that
  is none of the classes is always a bad sample.
- With `text_column` a text that is null or empty makes a bad sample.
- An image that is only named (`path` without `bytes`) is a bad sample; an `imagefolder` is the
  exception, since there the library itself lists the files.
- No data set's own code is ever run, and formats that unpickle or connect to programs are refused.

`streaming: true` reads front to back, an offset being a row of a shard: resuming inside a shard
passes over the rows before it without decoding them. Validation is always by index.
"""

from __future__ import annotations

import glob
import importlib.util
import os
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

from vistok.config import ConfigError
from vistok.config.registry import register
from vistok.data.addresses import HUB
from vistok.data.base import (
    BadSample,
    DataError,
    Dataset,
    Raw,
    Sample,
    Split,
    augments,
    one_line,
)
from vistok.data.kinds.class_names import (
    ClassNumbers,
    given_names,
    occurring,
)
from vistok.data.kinds.huggingface_config import HuggingFaceConfig
from vistok.data.kinds.huggingface_rows import Rows
from vistok.data.kinds.patterns import has_wildcards, literal_part
from vistok.data.kinds.tar_shards import protocol
from vistok.data.loading.stream import Entry, Stream

FORMATS = ("arrow", "cache", "imagefolder", "json", "parquet", "webdataset")
_ROWS = 16  # read at a time: a few images, whatever the size of the row group


@register("data", HuggingFaceConfig)
class HuggingFace:
    """The data part `huggingface`."""

    def __init__(self, config: HuggingFaceConfig) -> None:
        self.config = config

    def open(self, split: Split, augment: bool | None = None) -> Dataset | Stream:
        """A stream for training if `streaming`, else (or with augment=False) rows by index.

        DataError if the data set, the split or a column is missing; ConfigError if the library is.
        """
        config = self.config
        if importlib.util.find_spec("datasets") is None:
            raise ConfigError(
                "data.huggingface needs the datasets library; pip install 'vistok[hf]'"
            )
        name = config.train_split if split == "train" else config.val_split
        if name is None:
            raise DataError(f"data.huggingface {config.path}: no {split} split; give {split}_split")
        stream = split == "train" and config.streaming and augment is not False
        table, builder = _opened(config, name, stream)
        numbers = _numbers(config, split, table)
        rows = Rows(config, split, table.features, numbers, builder, augments(split, augment))
        return RowStream(table, rows) if stream else RowDataset(table, rows)


def _opened(config: HuggingFaceConfig, split: str, stream: bool) -> tuple[Any, str]:
    """(the library's data set of one split, the format it comes from)."""
    import datasets

    where = f"data.huggingface {config.path}"
    folder = Path(config.path).expanduser()
    try:
        if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
            table, builder = datasets.load_from_disk(str(folder)), "arrow"
            if isinstance(table, datasets.DatasetDict):
                table = table[split]
            elif table.split is not None and str(table.split) != split:
                raise DataError(
                    f"{where}: a saved folder of the split '{table.split}', not '{split}'; set "
                    f"train_split or val_split (null: none)"
                )
            if stream:
                files = max(1, len(table.cache_files))
                table = table.to_iterable_dataset(num_shards=files)
            return table, builder
        # Relative names lie in the folder or, of a format, here; those of the hub nowhere.
        base = folder if folder.is_dir() else Path() if config.path in FORMATS else None
        made = datasets.load_dataset_builder(
            _place(config, folder),
            config.name,
            data_files=_plain(config.data_files, base),
            revision=config.revision,
            cache_dir=config.cache_dir,
        )
        builder = type(made).__module__.rpartition(".")[2]
        if not type(made).__module__.startswith("datasets.") or builder not in FORMATS:
            raise DataError(
                f"{where}: comes as '{builder}', which is not read; expected one of "
                f"{', '.join(FORMATS)}"
            )
        if stream:
            return made.as_streaming_dataset(split), builder
        made.download_and_prepare()
        return made.as_dataset(split), builder
    except DataError:
        raise
    except Exception as error:  # the library's errors, and those of every file system below it
        cause = f"; {one_line(error.__cause__)}" if error.__cause__ is not None else ""
        if config.data_files is not None:
            cause += f"; data_files: {_plain(config.data_files)}"
        elif folder.is_dir() and has_wildcards(str(folder)):
            cause += "; the datasets library takes brackets in it for a pattern: rename the folder"
        raise DataError(
            f"{where}: the split '{split}' cannot be opened ({one_line(error)}{cause})"
        ) from None


def _place(config: HuggingFaceConfig, folder: Path) -> str:
    """The place as the library takes it; DataError for a name that is none of the three."""
    if config.path.startswith(HUB):
        return config.path.removeprefix(HUB)
    if folder.exists():
        return str(folder)
    if config.data_files is not None and "/" not in config.path:
        return config.path
    raise DataError(
        f"data.huggingface {config.path}: cannot be opened: no such folder; a data set of the hub "
        f"is path={HUB}{config.path}, files of a format need data_files"
    )


def _numbers(config: HuggingFaceConfig, split: Split, table: Any) -> ClassNumbers | None:
    """The classes of a data set; None if labels are not read, DataError if it does not say."""
    column, features = config.label_column, table.features or {}
    if column is None or (features and column not in features):
        return None
    if config.classes is not None:
        return ClassNumbers(given_names(config.classes), named=not isinstance(config.classes, int))
    names = getattr(features.get(column), "names", None)
    if names is not None:
        return ClassNumbers(tuple(str(name) for name in names), named=False)
    kind = str(getattr(features.get(column), "dtype", "unknown"))
    if not config.streaming and kind in ("string", "large_string"):
        if split == "val" and config.train_split is not None:
            table, _ = _opened(config, config.train_split, stream=False)
        labels = table.unique(column)
        return ClassNumbers(occurring(label for label in labels if label), named=True)
    raise DataError(
        f"data.huggingface {config.path}: column '{column}' does not say its "
        f"classes; give classes (how many, the names, or a file), or label_column=null"
    )


class RowDataset(Dataset):
    """Rows of an Arrow table by index."""

    def __init__(self, table: Any, rows: Rows) -> None:
        self._rows, self.config, self.classes = rows, rows.config, rows.classes
        self.size, self.flip, self.texts = rows.transform.hw, rows.transform.flip, rows.texts
        self.caption = rows.caption
        self._table = table.select_columns(rows.columns).with_format("arrow")
        if not len(table):
            raise DataError(f"data.huggingface {rows.config.path}: no rows; expected one or more")

    def __len__(self) -> int:
        return len(self._table)

    def sample(self, index: int, epoch: int = 0, seed: int = 0) -> Sample:
        content = self._rows.content(self._row(index), self._rows.name(index))
        if isinstance(content, BadSample):
            raise content
        return self._rows.sample(content, index, epoch, seed)

    def raw(self, index: int) -> Raw:
        return self._rows.raw(self._row(index), self._rows.name(index))

    @property
    def unsplit(self) -> tuple[str, ...]:
        """Files of a saved folder that states no split, so that any name opens it; else ()."""
        if self._table.split is not None:
            return ()
        return tuple(file["filename"] for file in self._table.cache_files)

    def _row(self, index: int) -> dict[str, Any]:
        return self._table[index : index + 1].to_pylist()[0]

    def record(self) -> dict[str, Any]:
        """`manifest` covers where the data come from, their number, and sizes of their files."""
        sizes = self._table.info.size_in_bytes or self._table.info.dataset_size
        return self._rows.record(len(self), f"bytes {sizes}")


class RowStream(Stream):
    """Shards of an iterable data set; an offset is a row of its shard."""

    def __init__(self, table: Any, rows: Rows) -> None:
        config = self.config = rows.config
        self._rows, self.classes = rows, rows.classes
        self.size, self.flip, self.texts = rows.transform.hw, rows.transform.flip, rows.texts
        # Only columns and Arrow tables: images stay undecoded, and rows can be passed over.
        self._table = table.select_columns(rows.columns).with_format("arrow")
        self.shards, self.shuffle, self.lanes = table.num_shards, config.shuffle, config.lanes
        split = (table.info.splits or {}).get(config.train_split)
        known = split.num_examples if split is not None else None
        if not (config.count or known):
            raise DataError(
                f"data.huggingface {config.path}: a stream whose length is not stated; give count, "
                f"the training samples of an epoch"
            )
        self.count = config.count or known

    def read(self, shard: int, offset: int = 0) -> Generator[Entry]:
        # `iter`, not `__iter__`: that one would split the shard once more over torch's workers.
        with closing(self._table.shard(self.shards, shard).iter(_ROWS)) as batches:
            yield from self._entries(shard, offset, batches)

    def _entries(self, shard: int, offset: int, batches: Generator) -> Generator[Entry]:
        start = 0
        while True:
            try:
                batch = next(batches, None)
            except Exception as error:  # Arrow's errors, and those of every file system
                raise DataError(
                    f"data.huggingface {self.name(shard)}: cannot be read behind row {start} "
                    f"({one_line(error)}); fetch it again, or leave it out of data_files"
                ) from None
            if batch is None:
                return
            first = min(max(offset - start, 0), len(batch))  # rows before `offset` stay as they are
            for row, content in enumerate(batch.slice(first).to_pylist(), start + first):
                yield Entry(row, row + 1, self._rows.content(content, self._rows.name(row, shard)))
            start += len(batch)

    def decode(self, content: Any, index: int, epoch: int, seed: int) -> Sample:
        return self._rows.sample(content, index, epoch, seed)

    def name(self, shard: int) -> str:
        return f"{one_line(self._rows.config.path)} (shard {shard} of {self.shards})"

    def record(self) -> dict[str, Any]:
        """`manifest` covers where the data come from, their number and that of the shards."""
        return self._rows.record(self.count, f"shards {self.shards}")


def _plain(files: Any, base: Path | None = None) -> Any:
    """The config's tuples as the lists that the library wants.

    base: folder of relative names on this machine. What exists below it is escaped, so that the
    library takes brackets in the name of a folder for no pattern.
    """
    if isinstance(files, dict):
        return {split: _plain(names, base) for split, names in files.items()}
    if isinstance(files, tuple):
        return [_plain(name, base) for name in files]
    if base is None or not isinstance(files, str) or protocol(files):
        return files
    place, rest = literal_part(str(base / Path(files).expanduser()))
    return os.path.join(glob.escape(place), rest) if has_wildcards(place) else files
