"""Images through the Hugging Face `datasets` library: hub names, folders, local files.

- `path` is a folder (of files, or made by `save_to_disk`), a name on the hub (`hf:owner/name`), or
  a format (`parquet`, `arrow`, `webdataset`, `imagefolder`, `json`) with its files in `data_files`.
  Without `hf:` the hub is never asked: a folder that is not there must not be somebody's data set.
- Rows are taken as Arrow has them, so images are decoded here, by `images`, like all others.
- Label -1 or null means unlabeled; with `need_label` such a row is a bad sample. A label that has
  no class name is always a bad sample. Class names come from the data set's ClassLabel.
- With `text_column` a text that is null or empty makes a bad sample.
- An image that is only named (`path` without `bytes`) is a bad sample; an `imagefolder` is the
  exception, since there the library itself lists the files.
- No data set's own code is ever run, and formats that unpickle or connect to programs are refused.

`streaming: true` reads front to back, an offset being a row of a shard: resuming inside a shard
passes over the rows before it without decoding them. Validation is always by index.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from vistok.config import ConfigError
from vistok.config.registry import register
from vistok.data.addresses import HUB
from vistok.data.base import (
    UNLABELED,
    BadSample,
    DataError,
    Dataset,
    Sample,
    Split,
    augments,
    manifest_hash,
    one_line,
)
from vistok.data.captions import Caption, one_source, own_text
from vistok.data.decode import images
from vistok.data.decode.transforms import Transform, TransformConfig
from vistok.data.kinds.class_names import given_names
from vistok.data.kinds.tar_shards import LARGEST, TarShard
from vistok.data.loading.stream import Entry, Stream

FORMATS = ("arrow", "cache", "imagefolder", "json", "parquet", "webdataset")
_Content = tuple[str, bytes | str, int, str | None]
_ROWS = 16  # read at a time: a few images, whatever the size of the row group


class HuggingFaceConfig(TransformConfig):
    """A data set of the Hugging Face library, from the hub or from this machine."""

    kind: Literal["huggingface"] = "huggingface"
    path: str
    """A local folder, hf:NAME on the hub, or a format like `parquet` together with data_files."""
    name: str | None = None
    """Configuration of the data set, where it has several."""
    data_files: str | tuple[str, ...] | dict[str, str | tuple[str, ...]] | None = None
    """Files, or files by split: {train: "train-*.parquet", validation: ...}."""
    revision: str | None = None
    """Commit or branch on the hub; null: the newest."""
    train_split: str | None = "train"
    """Name of the training split; without streaming also a slice like train[:90%]."""
    val_split: str | None = "validation"
    """Name of the validation split, or a slice like train[90%:]."""
    image_column: str = "image"
    """Column of the images."""
    label_column: str | None = "label"
    """Column of the class numbers; null: unlabeled."""
    classes: int | tuple[str, ...] | str | None = None
    """Number of classes, their names, or a file of names, where the label is a bare number."""
    need_label: bool = False
    """True: an unlabeled row (-1 or null) is a bad sample."""
    text_column: str | None = None
    """Column of the texts; null: texts are ignored."""
    cache_dir: str | None = None
    """Folder in which the library keeps its downloads and conversions; null: its default."""
    streaming: bool = False
    """True: training reads front to back, without downloading the data set first."""
    count: int | None = Field(default=None, ge=1)
    """Streaming: training samples, where the data set does not say."""
    shuffle: int = Field(default=1024, ge=0)
    """Streaming: samples of a lane that are held and shuffled; 0: the order of the shard."""
    lanes: int | None = Field(default=None, ge=1)
    """Streaming: parts (lanes) that are read in parallel; null: processes x workers of the first
    start."""

    @model_validator(mode="after")
    def _one_text(self) -> HuggingFaceConfig:
        one_source(self, "text_column")
        return self


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
        rows = _Rows(config, split, table.features, builder, augments(split, augment))
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
        made = datasets.load_dataset_builder(
            _place(config, folder),
            config.name,
            data_files=_plain(config.data_files),
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


class _Rows:
    """Shared by both ways of reading: columns, a row -> a sample, the record."""

    def __init__(
        self,
        config: HuggingFaceConfig,
        split: Split,
        features: Any,
        builder: str,
        augment: bool,
    ) -> None:
        self.config, self.split, self.features = config, split, features
        self.follow = builder == "imagefolder"
        self.transform = Transform(config, augment=augment)
        more = (config.label_column, config.text_column)
        self.columns = [config.image_column, *(c for c in more if c is not None)]
        for column in self.columns if features is not None else ():
            if column not in features:
                raise DataError(
                    f"data.huggingface {config.path}: no column '{column}'; it has "
                    f"{', '.join(features)}: set image_column, label_column (null: unlabeled) "
                    f"or text_column"
                )
        self.classes = self._names()
        self.caption = Caption(config, self.classes)
        self.texts = self.caption.given or config.text_column is not None

    def _names(self) -> tuple[str, ...]:
        config = self.config
        if config.label_column is None:
            return ()
        if config.classes is not None:
            return given_names(config.classes)
        names = getattr((self.features or {}).get(config.label_column), "names", None)
        if names is None:
            raise DataError(
                f"data.huggingface {config.path}: column '{config.label_column}' does not say its "
                f"classes; give classes (how many, the names, or a file), or label_column=null"
            )
        return tuple(str(name) for name in names)

    def name(self, row: int, shard: int | None = None) -> str:
        place = row if shard is None else f"{shard}:{row}"
        return f"{one_line(self.config.path)}[{place}]"

    def content(self, row: dict[str, Any], name: str) -> _Content | BadSample:
        """(name, bytes or path of the image, label, text), or why the row cannot be used."""
        image = row[self.config.image_column]
        if isinstance(image, dict):
            path, image = image.get("path"), image.get("bytes")
            if image is None and path and self.follow:
                image = path
            elif image is None and path:
                return BadSample(name, "only names a file; expected the image itself")
        elif isinstance(image, str):
            return BadSample(name, "holds text; expected the image itself")
        if image is None:
            return BadSample(name, "the image is null")
        if not isinstance(image, bytes | str):
            return BadSample(name, f"holds {type(image).__name__}; expected the bytes of a file")
        label = UNLABELED
        if self.config.label_column is not None:
            label = row[self.config.label_column]
            if label is None or label == UNLABELED:
                if self.config.need_label:
                    return BadSample(name, f"has no label (label={label})")
                label = UNLABELED
            elif type(label) is not int or not 0 <= label < len(self.classes):
                return BadSample(name, f"label {label!r}; expected 0..{len(self.classes) - 1}")
        try:
            return name, image, label, self._text(row, label, name)
        except ValueError as error:
            return BadSample(name, str(error))
        except BadSample as bad:
            return bad

    def _text(self, row: dict[str, Any], label: int, name: str) -> str | None:
        column = self.config.text_column
        if column is None:
            return self.caption(label, name)
        return own_text(row[column], f"column '{column}'")

    def sample(self, content: Any, index: int, epoch: int, seed: int) -> Sample:
        name, data, label, text = content
        if isinstance(data, str):
            try:
                with TarShard(data) as file:
                    data = file.read(LARGEST)
            except DataError as error:
                raise BadSample(name, str(error)) from None
        image = images.decode(data, name)
        pixels = self.transform(image, index, epoch, seed)
        return Sample(index, pixels, label, name, text=text)

    def record(self, count: int, fingerprint: str) -> dict[str, Any]:
        config = self.config
        facts = [f"{k} {getattr(config, k)}" for k in ("path", "name", "data_files", "revision")]
        split = config.train_split if self.split == "train" else config.val_split
        return {
            "kind": "huggingface",
            "source": config.path,
            "split": self.split,
            "name": config.name,
            "revision": config.revision,
            "count": count,
            "classes": len(self.classes),
            **self.transform.record(),
            **self.caption.record(),
            **({"text": {"column": config.text_column}} if config.text_column else {}),
            "manifest": manifest_hash([*facts, f"split {split}", f"count {count}", fingerprint]),
        }


class RowDataset(Dataset):
    """Rows of an Arrow table by index."""

    def __init__(self, table: Any, rows: _Rows) -> None:
        self._rows, self.classes = rows, rows.classes
        self.size, self.flip, self.texts = rows.transform.hw, rows.transform.flip, rows.texts
        self.caption = rows.caption
        self._table = table.select_columns(rows.columns).with_format("arrow")
        if not len(table):
            raise DataError(f"data.huggingface {rows.config.path}: no rows; expected one or more")

    def __len__(self) -> int:
        return len(self._table)

    def sample(self, index: int, epoch: int = 0, seed: int = 0) -> Sample:
        row = self._table[index : index + 1].to_pylist()[0]
        content = self._rows.content(row, self._rows.name(index))
        if isinstance(content, BadSample):
            raise content
        return self._rows.sample(content, index, epoch, seed)

    def record(self) -> dict[str, Any]:
        """`manifest` covers where the data come from, their number, and sizes of their files."""
        sizes = self._table.info.size_in_bytes or self._table.info.dataset_size
        return self._rows.record(len(self), f"bytes {sizes}")


class RowStream(Stream):
    """Shards of an iterable data set; an offset is a row of its shard."""

    def __init__(self, table: Any, rows: _Rows) -> None:
        config = rows.config
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


def _plain(files: Any) -> Any:
    """The config's tuples as the lists that the library wants."""
    if isinstance(files, dict):
        return {split: _plain(names) for split, names in files.items()}
    return list(files) if isinstance(files, tuple) else files
