"""Images in tar shards in WebDataset's layout: read front to back, or by index.

A sample is an image member and, if `classes` is given, a label: the class number (or, where names
are given, the name) in its `.cls` member, or `label_key` of its `.json` member. Without `classes`
labels are ignored. What cannot be used is a bad sample with a reason: no image, no label, a label
that is none of the classes, with `text` a text that is missing, empty or not UTF-8, a key that the
archive had before, a name that leads out of it, the half sample at the end of a cut shard.

Training reads streams (`streaming: true`): a block of each lane is held undecoded, so `shuffle`
times the size of a sample for each lane. Validation, and `streaming: false`, read by index; the
index comes from the headers of all shards.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Generator, Iterator
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
    file_size,
    manifest_hash,
    one_line,
    raw_of,
)
from vistok.data.captions import Caption, one_source, own_text
from vistok.data.decode import images
from vistok.data.decode.transforms import Transform, TransformConfig
from vistok.data.kinds import tar_shards
from vistok.data.kinds.class_names import ClassNumbers, given_names
from vistok.data.kinds.tar_samples import Group, groups
from vistok.data.kinds.tar_shards import HEADERS, TarShard
from vistok.data.loading.stream import Entry, Stream

log = logging.getLogger(__name__)

_Content = tuple[str, bytes, int, str | None]

LABEL_BYTES = 256  # of a `.cls` member
_SHOWN = 6  # members of a sample that a message lists
IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp", "bmp", "gif")


class WebDatasetConfig(TransformConfig):
    """Images in tar shards: local paths, globs, braces, or any fsspec URL."""

    kind: Literal["webdataset"] = "webdataset"
    train: str | tuple[str, ...] | None = None
    """Shards of the training split: train-{00000..00099}.tar, folder/*.tar, s3://bucket/a.tar."""
    val: str | tuple[str, ...] | None = None
    """Shards of the validation split."""
    image: str | None = None
    """Ending of the image's member; null: the one of jpg, jpeg, png, webp, bmp, gif."""
    classes: int | tuple[str, ...] | str | None = None
    """Number of classes, their names, or a file of names; null: unlabeled."""
    label_key: str | None = None
    """Key of the class number or name in the `.json` member; null: the `.cls` member holds it."""
    text: str | None = None
    """Ending of the member with the sample's text, such as txt; null: texts are ignored."""
    count: int | None = Field(default=None, ge=1)
    """Training samples; null: counted in the headers of local shards (needed for URLs)."""
    streaming: bool = True
    """true: training reads front to back; false: by index, for local shards."""
    shuffle: int = Field(default=1024, ge=0)
    """Streaming: samples of a lane that are held and shuffled; 0: the order of the shard."""
    lanes: int | None = Field(default=None, ge=1)
    """Streaming: parts (lanes) that are read in parallel; null: processes x workers of the first
    start."""

    @model_validator(mode="after")
    def _places(self) -> WebDatasetConfig:
        if not self.train and not self.val:
            raise InputError("neither train nor val is given; expected tar shards")
        for patterns in (self.train, self.val):
            for pattern in (patterns,) if isinstance(patterns, str) else patterns or ():
                tar_shards.check(pattern)
        if self.label_key is not None and self.classes is None:
            raise InputError(f"label_key={self.label_key} needs classes; give a count or names")
        one_source(self, "text")
        if isinstance(self.classes, int) and self.classes < 1:
            raise InputError(f"classes={self.classes}: expected 1 or more")
        return self


@register("data", WebDatasetConfig)
class WebDataset:
    """The data part `webdataset`."""

    def __init__(self, config: WebDatasetConfig) -> None:
        self.config = config

    def open(self, split: Split, augment: bool | None = None) -> Dataset | Stream:
        """A stream for training (`streaming`), else (or with augment=False) samples by index.

        DataError if shards are missing, cannot be read, or hold no sample.
        """
        patterns = self.config.train if split == "train" else self.config.val
        if not patterns:
            raise DataError(f"data.webdataset: no {split} split; give {split}")
        tars = Tars(tar_shards.find(patterns), self.config, split, augments(split, augment))
        if split == "train" and self.config.streaming and augment is not False:
            return TarStream(tars)
        return TarDataset(tars)


class Tars:
    """Shared by both ways of reading: shards, a group -> a sample, the record."""

    def __init__(
        self, shards: list[str], config: WebDatasetConfig, split: Split, augment: bool
    ) -> None:
        self.shards, self.config, self.split = shards, config, split
        self.transform = Transform(config, augment=augment)
        self.classes = given_names(config.classes)
        self._number = ClassNumbers(self.classes, named=not isinstance(config.classes, int))
        self.caption = Caption(config, self.classes)
        self.texts = self.caption.given or config.text is not None
        self.endings = IMAGE_ENDINGS if config.image is None else (config.image.lower(),)
        self.label = "cls" if config.label_key is None else "json"

    def name(self, shard: int, key: str = "") -> str:
        """`shard.tar/key`, printable."""
        text = self.shards[shard].rsplit("/", 1)[-1] + (f"/{key}" if key else "")
        return one_line(os.fsencode(text).decode("utf-8", "backslashreplace"))

    def image_ending(self, group: Group) -> str:
        """Ending of the image member; ValueError if there is none, or more than one."""
        found = [ending for ending in group.members if ending in self.endings]
        if len(found) != 1:
            members = [one_line(ending) for ending in group.members]
            has = ", ".join(members[:_SHOWN]) + ", ..." * (len(members) > _SHOWN) or "nothing"
            raise InputError(
                f"{len(found) or 'no'} image{'s' * bool(found)} among its members ({has}); "
                f"expected one of {' '.join(self.endings)}" + ("; set image" if found else "")
            )
        return found[0]

    def content(self, shard: int, group: Group) -> _Content | BadSample:
        """(name, bytes of the image, label, text), or why the sample cannot be used."""
        name = self.name(shard, group.key)
        if group.problem is not None:
            return BadSample(name, group.problem)
        try:
            image, label = group.contents[self.image_ending(group)], self.label_of(group)
            return name, image, label, self.text_of(group, label, name)
        except BadSample as bad:
            return bad
        except ValueError as error:
            return BadSample(name, str(error))

    def raw(self, shard: int, group: Group) -> Raw:
        """The image as it is stored, with the fault of its label or text; BadSample without one."""
        name = self.name(shard, group.key)
        try:
            if group.problem is not None:
                raise InputError(group.problem)
            data = group.contents[self.image_ending(group)]
        except InputError as error:
            raise BadSample(name, str(error)) from None
        text_of = lambda label: self.text_of(group, label, name)
        return raw_of(name, data, lambda: self.label_of(group), text_of)

    def text_of(self, group: Group, label: int, name: str) -> str | None:
        """The text; ValueError or BadSample if there should be one and is none."""
        ending = self.config.text
        if ending is None:
            return self.caption(label, name)
        return own_text(group.contents.get(ending.lower()), f".{ending.lower()} member")

    def label_of(self, group: Group) -> int:
        """The class number; ValueError if there is none."""
        if not self.classes:
            return UNLABELED
        data = group.contents.get(self.label)
        if data is None:
            raise InputError(f"has no label: no .{self.label} member")
        label: Any = data[:LABEL_BYTES].decode("utf-8", "replace").strip()
        if self.config.label_key is not None:
            try:
                label = json.loads(data)[self.config.label_key]
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise InputError(
                    f"has no label: no key '{self.config.label_key}' in its .json "
                    f"({type(error).__name__})"
                ) from None
        elif label.isascii() and label.isdigit() and label not in self._number.names:
            label = int(label)
        return self._number(label)

    def decode(self, content: _Content, index: int, epoch: int, seed: int) -> Sample:
        name, data, label, text = content
        image = images.decode(data, name)
        pixels = self.transform(image, index, epoch, seed)
        return Sample(index, pixels, label, name, text=text)

    def record(self, count: int) -> dict[str, Any]:
        """`manifest` covers names, and sizes of local shards; a missing shard has size -1."""
        lines = []
        for number, place in enumerate(self.shards):
            size = "?" if tar_shards.protocol(place) else file_size(place)
            lines.append(f"{self.name(number)} {size}")
        return {
            "kind": "webdataset",
            "source": self.shards[0].rpartition("/")[0] or ".",
            "split": self.split,
            "count": count,
            "classes": len(self.classes),
            **self.transform.record(),
            **self.caption.record(),
            **({"text": {"member": self.config.text}} if self.config.text else {}),
            "shards": len(self.shards),
            "manifest": manifest_hash(lines),
        }


class TarStream(Stream):
    """Tar shards read front to back; an offset is the byte of a sample's first member."""

    def __init__(self, tars: Tars) -> None:
        config = tars.config
        self.tars, self.classes = tars, tars.classes
        self.size, self.flip, self.texts = tars.transform.hw, tars.transform.flip, tars.texts
        self.shards, self.shuffle, self.lanes = len(tars.shards), config.shuffle, config.lanes
        self.count = config.count or self._counted()

    def read(self, shard: int, offset: int = 0) -> Generator[Entry]:
        with TarShard(self.tars.shards[shard]) as file:
            for group in groups(file, offset):
                yield Entry(group.offset, group.after, self.tars.content(shard, group))

    def decode(self, content: Any, index: int, epoch: int, seed: int) -> Sample:
        return self.tars.decode(content, index, epoch, seed)

    def name(self, shard: int) -> str:
        return self.tars.name(shard)

    def record(self) -> dict[str, Any]:
        return self.tars.record(self.count)

    def _counted(self) -> int:
        for name in self.tars.shards:
            if tar_shards.protocol(name):
                raise DataError(
                    f"data.webdataset {name}: counting the samples of a URL would read it all; "
                    f"give count, the training samples of an epoch"
                )
        found = sum(1 for name in self.tars.shards for _ in _headers(name))
        if not found:
            raise DataError(
                f"data.webdataset {self.tars.shards[0]}: no sample in {self.shards} shards; "
                f"expected at least one"
            )
        return found


class TarDataset(Dataset):
    """Tar shards read by index: every group of members is a sample, usable or not."""

    def __init__(self, tars: Tars) -> None:
        self.tars, self.classes = tars, tars.classes
        self.size, self.flip, self.texts = tars.transform.hw, tars.transform.flip, tars.texts
        self.caption = tars.caption
        places: list[tuple[int, int]] = []
        self._problems: dict[int, BadSample] = {}
        for shard, name in enumerate(tars.shards):
            before = len(places)
            for group in _headers(name):
                if group.problem is not None:
                    bad = BadSample(tars.name(shard, group.key), group.problem)
                    self._problems[len(places)] = bad
                places.append((shard, group.offset))
            if len(places) == before:
                log.warning("shard %s has no samples", tars.name(shard))
        if not places:
            raise DataError(
                f"data.webdataset {tars.shards[0]}: no sample in {len(tars.shards)} shards; "
                f"expected at least one"
            )
        self._places = np.array(places, np.int64)

    def __len__(self) -> int:
        return len(self._places)

    def sample(self, index: int, epoch: int = 0, seed: int = 0) -> Sample:
        shard, group = self._group(index)
        content = self.tars.content(shard, group)
        if isinstance(content, BadSample):
            raise content
        return self.tars.decode(content, index, epoch, seed)

    def raw(self, index: int) -> Raw:
        shard, group = self._group(index)
        return self.tars.raw(shard, group)

    def record(self) -> dict[str, Any]:
        return self.tars.record(len(self))

    def _group(self, index: int) -> tuple[int, Group]:
        """(shard, members of a sample, read); BadSample if they are damaged."""
        if index in self._problems:
            raise BadSample(*self._problems[index].args)
        shard, offset = map(int, self._places[index])
        try:
            with TarShard(self.tars.shards[shard], HEADERS) as file:
                group = next(groups(file, offset, repeats=False), None)
        except DataError as error:  # gone since it was opened
            raise BadSample(self.tars.name(shard), str(error)) from None
        if group is None:
            raise BadSample(self.tars.name(shard), "has changed since it was opened")
        return shard, group


def _headers(name: str) -> Iterator[Group]:
    with TarShard(name, HEADERS) as file:
        yield from groups(file, contents=False)
