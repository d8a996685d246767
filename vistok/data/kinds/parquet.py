"""Images in parquet shards: a column `image` ({bytes, path} or plain bytes) and a label.

- Labels are class numbers or class names (`parquet_labels`). Class names are `classes`, or those of
  the shards' feature types, of `classes.json` beside them, or the labels that occur in `train`.
- Label -1, null or "" means unlabeled; with `need_label` such a row is a bad sample. A label that
  is none of the classes is always a bad sample.
- A null image, or one that only names a file elsewhere, is a bad sample: no path is followed.
- Shuffled reading of shards larger than memory reads a row group (100-1000 images) for nearly
  every sample: then raise `row_groups_mb`, or use a folder. Sets that fit: `cache: true`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.data.base import (
    UNLABELED,
    BadSample,
    DataError,
    Dataset,
    Raw,
    Sample,
    Split,
    augments,
    held_out,
    manifest_hash,
)
from vistok.data.captions import Caption
from vistok.data.decode import images
from vistok.data.decode.transforms import Transform, TransformConfig
from vistok.data.kinds.class_names import ClassNumbers, is_unlabeled
from vistok.data.kinds.parquet_labels import label_classes
from vistok.data.kinds.parquet_shards import ParquetShards, find
from vistok.data.loading.memory import Images


class ParquetConfig(TransformConfig):
    """Images in parquet shards, as the Hugging Face hub has them."""

    kind: Literal["parquet"] = "parquet"
    train: str | tuple[str, ...] | None = None
    """Paths or globs of the training shards."""
    val: str | tuple[str, ...] | None = None
    """Paths or globs of the validation shards."""
    val_share: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Share of the rows of `train` held out for validation, by a stable hash of file and row."""
    image_column: str = "image"
    """Column of the images."""
    label_column: str | None = "label"
    """Column of the class numbers or names; null: unlabeled."""
    classes: int | tuple[str, ...] | str | None = None
    """Number of classes, their names, or a file of names; null: what the shards say, or hold."""
    need_label: bool = False
    """true: an unlabeled row (-1 or null) is a bad sample."""
    cache: bool = False
    """true: decode all images when opening and keep them in memory as uint8."""
    row_groups_mb: int = Field(default=256, ge=1)
    """Megabytes of row groups that each process keeps in memory after reading them."""

    @model_validator(mode="after")
    def _places(self) -> ParquetConfig:
        if not self.train and not self.val:
            raise InputError("neither train nor val is given; expected shards or a glob")
        if self.val_share is not None and (not self.train or self.val):
            raise InputError(
                f"val_share={self.val_share} is a share of train; got train={self.train}, "
                f"val={self.val}: give train and one of val_share, val"
            )
        return self


@register("data", ParquetConfig)
class Parquet:
    """The data part `parquet`."""

    def __init__(self, config: ParquetConfig) -> None:
        self.config = config

    def open(self, split: Split, augment: bool | None = None) -> Dataset:
        """Open the shards of a split; DataError naming the shard that cannot be read.

        With augment=False nothing is decoded ahead (`cache`): each image is read once.
        """
        config = self.config
        patterns = config.train if split == "train" or config.val_share else config.val
        if not patterns:
            remedy = "val or val_share" if split == "val" else "train"
            raise DataError(f"data.parquet: no {split} split; give {remedy}")
        column = config.label_column
        columns = [config.image_column, *([column] if column else [])]
        paths = find(patterns)
        shards = ParquetShards(paths, columns, config.row_groups_mb)
        numbers = None
        if column is not None:
            numbers = self._classes(paths, column)
        if augment is False:
            config = config.model_copy(update={"cache": False})
        return ParquetDataset(shards, numbers, config, split, augments(split, augment))

    def _classes(self, paths: list[Path], column: str) -> ClassNumbers:
        """The classes of the opened shards: those of training, where labels have no names."""
        config, train, missing = self.config, paths, None
        if config.train:
            try:
                train = find(config.train)
            except DataError as error:  # an evaluation may run where they are not
                missing = error
        others = [path for path in paths if path not in train]
        return label_classes(train, others, column, config.classes, missing)


class ParquetDataset(Dataset):
    """Images read from the rows of shards."""

    def __init__(
        self,
        shards: ParquetShards,
        numbers: ClassNumbers | None,
        config: ParquetConfig,
        split: Split,
        augment: bool,
    ) -> None:
        self.shards, self.config, self.split = shards, config, split
        self._numbers = numbers
        self.transform = Transform(config, augment=augment)
        self.size, self.flip = self.transform.hw, self.transform.flip
        self._rows: np.ndarray | None = None
        if config.val_share is not None:
            keep = split == "val"
            picked = [
                row
                for row in range(len(shards))
                if held_out(shards.name(row), config.val_share) == keep
            ]
            self._rows = np.array(picked, np.int64)
        if not len(self):
            raise DataError(
                f"data.parquet {shards.shards[0].path}: no rows in the {split} split; expected one "
                f"or more"
            )
        self.classes = () if numbers is None else numbers.classes
        self.caption = Caption(config, self.classes)
        self.texts = self.caption.given
        self._memory = Images(self._decoded()) if config.cache else None

    def __len__(self) -> int:
        return len(self.shards) if self._rows is None else len(self._rows)

    def sample(self, index: int, epoch: int = 0, seed: int = 0) -> Sample:
        name = self.shards.name(self._row(index))
        if self._memory is not None:
            image, label = self._memory[index]
        else:
            image, label = self._read(index)
        pixels = self.transform.finish(image, index, epoch, seed)
        return Sample(index, pixels, label, name, text=self.caption(label, name))

    def raw(self, index: int) -> Raw:
        row = self._row(index)
        name, content = self.shards.name(row), self.shards.row(row)
        data = self._bytes(name, content)
        try:
            return Raw(name, data, self._label(name, content))
        except BadSample as bad:
            return Raw(name, data, UNLABELED, bad.reason)

    def record(self) -> dict[str, Any]:
        """`manifest` covers file names, sizes, row counts, and which rows are held out."""
        files = [
            {"name": s.path.name, "bytes": s.size, "rows": sum(s.groups)}
            for s in self.shards.shards
        ]
        facts = [f"{f['name']} {f['bytes']} {f['rows']}" for f in files]
        share = self.config.val_share
        held = [] if share is None else [f"{self.split} val_share={share}"]
        return {
            "kind": "parquet",
            "source": str(self.shards.shards[0].path.parent),
            "split": self.split,
            "val_share": share,
            "count": len(self),
            "classes": len(self.classes),
            **self.transform.record(),
            **self.caption.record(),
            "files": files,
            "manifest": manifest_hash([*facts, *held]),
        }

    def _row(self, index: int) -> int:
        return index if self._rows is None else int(self._rows[index])

    def _read(self, index: int) -> tuple[Any, int]:
        """(image after `Transform.prepare`, label) from the shard."""
        row = self._row(index)
        name, content = self.shards.name(row), self.shards.row(row)
        data, label = self._bytes(name, content), self._label(name, content)
        return self.transform.prepare(images.decode(data, name)), label

    def _bytes(self, name: str, content: dict[str, Any]) -> bytes:
        image = content[self.config.image_column]
        if isinstance(image, dict):
            image = image.get("bytes")
        if image is None:
            raise BadSample(name, "the image is null")
        if not isinstance(image, bytes):
            raise BadSample(name, f"holds {type(image).__name__}; expected the bytes of a file")
        return image

    def _label(self, name: str, content: dict[str, Any]) -> int:
        if self._numbers is None:
            return UNLABELED
        label = content[self.config.label_column]
        if is_unlabeled(label):
            if self.config.need_label:
                raise BadSample(name, f"has no label (label={label!r})")
            return UNLABELED
        try:
            return self._numbers(int(label) if isinstance(label, bool) else label)
        except InputError as error:
            raise BadSample(name, str(error)) from None

    def _decoded(self) -> Iterator[tuple[np.ndarray, int] | BadSample]:
        for index in range(len(self)):
            try:
                image, label = self._read(index)
            except BadSample as bad:
                yield bad
            else:
                yield np.asarray(image), label
