"""Rows of a Hugging Face data set -> samples: their image, label and text, or why there is none."""

from __future__ import annotations

from typing import Any

from vistok.core.errors import InputError
from vistok.data.base import (
    UNLABELED,
    BadSample,
    DataError,
    Raw,
    Sample,
    Split,
    manifest_hash,
    one_line,
    raw_of,
)
from vistok.data.captions import Caption, own_text
from vistok.data.decode import images
from vistok.data.decode.transforms import Transform
from vistok.data.kinds.class_names import ClassNumbers, is_unlabeled
from vistok.data.kinds.huggingface_config import HuggingFaceConfig
from vistok.data.kinds.tar_shards import LARGEST, TarShard

_Content = tuple[str, bytes | str, int, str | None]


class Rows:
    """Shared by both ways of reading: columns, a row -> a sample, the record."""

    def __init__(
        self,
        config: HuggingFaceConfig,
        split: Split,
        features: Any,
        numbers: ClassNumbers | None,
        builder: str,
        augment: bool,
    ) -> None:
        self.config, self.split, self._numbers = config, split, numbers
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
        self.classes = () if numbers is None else numbers.classes
        self.caption = Caption(config, self.classes)
        self.texts = self.caption.given or config.text_column is not None

    def name(self, row: int, shard: int | None = None) -> str:
        place = row if shard is None else f"{shard}:{row}"
        return f"{one_line(self.config.path)}[{place}]"

    def content(self, row: dict[str, Any], name: str) -> _Content | BadSample:
        """(name, bytes or path of the image, label, text), or why the row cannot be used."""
        try:
            image, label = self._image(row), self._label(row)
            return name, image, label, self._text(row, label, name)
        except BadSample as bad:
            return bad
        except InputError as error:
            return BadSample(name, str(error))

    def raw(self, row: dict[str, Any], name: str) -> Raw:
        """The image as it is stored, with the fault of its label or text; BadSample without one."""
        try:
            data = self._bytes(self._image(row), name)
        except InputError as error:
            raise BadSample(name, str(error)) from None
        text_of = lambda label: self._text(row, label, name)
        return raw_of(name, data, lambda: self._label(row), text_of)

    def _image(self, row: dict[str, Any]) -> bytes | str:
        """Bytes or path of the image; InputError if the row has none."""
        image = row[self.config.image_column]
        if isinstance(image, dict):
            path, image = image.get("path"), image.get("bytes")
            if image is None and path and self.follow:
                return path
            if image is None and path:
                raise InputError("only names a file; expected the image itself")
        elif isinstance(image, str):
            raise InputError("holds text; expected the image itself")
        if image is None:
            raise InputError("the image is null")
        if not isinstance(image, bytes):
            raise InputError(f"holds {type(image).__name__}; expected the bytes of a file")
        return image

    def _label(self, row: dict[str, Any]) -> int:
        """The class number; InputError if the label is none of the classes."""
        if self._numbers is None:
            return UNLABELED
        label = row[self.config.label_column]
        if is_unlabeled(label):
            if self.config.need_label:
                raise InputError(f"has no label (label={label!r})")
            return UNLABELED
        return self._numbers(int(label) if isinstance(label, bool) else label)

    def _bytes(self, image: bytes | str, name: str) -> bytes:
        if isinstance(image, bytes):
            return image
        try:
            with TarShard(image) as file:
                return file.read(LARGEST)
        except DataError as error:
            raise BadSample(name, str(error)) from None

    def _text(self, row: dict[str, Any], label: int, name: str) -> str | None:
        column = self.config.text_column
        if column is None:
            return self.caption(label, name)
        return own_text(row[column], f"column '{column}'")

    def sample(self, content: Any, index: int, epoch: int, seed: int) -> Sample:
        name, data, label, text = content
        image = images.decode(self._bytes(data, name), name)
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
