"""A folder of images: the class is the first sub-folder, whatever is nested below it.

Files directly in the folder are unlabeled (-1). Samples are sorted bytewise by relative path, so
they have the same index on every machine. Hidden files and other endings are left out and counted
in the record (`ignored`). A broken image is found when it is read (`BadSample`).
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.data.base import (
    UNLABELED,
    DataError,
    Dataset,
    Raw,
    Sample,
    Split,
    augments,
    file_size,
    held_out,
    manifest_hash,
)
from vistok.data.captions import Caption
from vistok.data.decode import images
from vistok.data.decode.transforms import Transform, TransformConfig
from vistok.data.kinds.walk import UNREAD, ending_of, endings_text, walk

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")

log = logging.getLogger(__name__)


class FolderConfig(TransformConfig):
    """Images in folders, one sub-folder per class."""

    kind: Literal["folder"] = "folder"
    path: str | None = None
    """Folder of the training split (and of the validation share)."""
    val_path: str | None = None
    """Folder of the validation split."""
    val_share: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Share of `path` held out for validation, by a stable hash of each file's relative path."""

    @model_validator(mode="after")
    def _places(self) -> FolderConfig:
        check_places(self, "a folder")
        return self


@register("data", FolderConfig)
class Folder:
    """The data part `folder`."""

    def __init__(self, config: FolderConfig) -> None:
        self.config = config

    def open(self, split: Split, augment: bool | None = None) -> Dataset:
        """List the files of a split; DataError if the folder is missing, empty or not given."""
        found, rows, classes = open_split(self.config, split, _list, _classes, "image")
        names = [found.names[i] for i in rows]
        augment = augments(split, augment)
        return FolderDataset(found.root, names, classes, found.ignored, self.config, split, augment)


def check_places(config: Any, expected: str) -> None:
    """ValueError unless `path`, `val_path` and `val_share` of a config say where each split is."""
    if config.path is None and config.val_path is None:
        raise InputError(f"neither path nor val_path is given; expected {expected}")
    if config.val_share is not None and (config.path is None or config.val_path is not None):
        raise InputError(
            f"val_share={config.val_share} is a share of path; got path={config.path}, "
            f"val_path={config.val_path}: give path and one of val_share, val_path"
        )


@dataclass(frozen=True)
class Listed:
    """Files of a place (a folder, or a csv that lists them)."""

    root: Path
    names: list[str]  # relative to root
    labels: list[str]  # "" = unlabeled
    groups: list[str]  # `val_share` keeps files of one group on one side
    ignored: Mapping[str, int] = field(default_factory=dict)  # files of other endings, by ending


def open_split(
    config: Any,
    split: Split,
    read: Callable[[str, Any], Listed],
    named: Callable[[Listed], tuple[str, ...]],
    what: str,
) -> tuple[Listed, Sequence[int], tuple[str, ...]]:
    """(the files of a split's place, which of them are the split's, class names).

    Args:
        config: with `path`, `val_path` and `val_share`. read: (place, config) -> its files.
        named: their class names. what: one of them, for messages.
    """
    kind, share = f"data.{config.kind}", config.val_share
    if split == "val" and config.val_path is None and share is None:
        raise DataError(f"{kind} {config.path}: no validation split; give val_path or val_share")
    if split == "train" and config.path is None:
        raise DataError(f"{kind}: no training split; give path")
    place = config.val_path if split == "val" and config.val_path else config.path
    found = read(place, config)
    if split == "train" or place != config.path:  # else it was said of the training split
        _say_unread(found.ignored, f"{kind} {place}")
    classes = named(found)
    if split == "val" and config.val_path and config.path:
        classes = _known(classes, named(read(config.path, config)), config)
    if share is None:
        return found, range(len(found.names)), classes
    rows = [i for i, group in enumerate(found.groups) if held_out(group, share) == (split == "val")]
    if not rows:
        raise DataError(
            f"{kind} {place}: val_share={share} leaves no {what} to the {split} split; change "
            f"val_share or give val_path"
        )
    return found, rows, classes


def _say_unread(ignored: Mapping[str, int], where: str) -> None:
    odd = {ending: count for ending, count in ignored.items() if ending in UNREAD}
    if odd:
        log.warning(
            "%s: %s left out: not among the kinds that are read; convert or remove them",
            where,
            endings_text(odd),
        )


def list_folder(place: str, endings: tuple[str, ...], kind: str, what: str) -> Listed:
    """The files of a folder; the label is the first sub-folder."""
    names, ignored = files_below(place, endings, kind, what)
    labels = [name.split("/", 1)[0] if "/" in name else "" for name in names]
    return Listed(Path(place).expanduser(), names, labels, names, ignored)


class FolderDataset(Dataset):
    """Images read from files. `names`: relative paths with forward slashes."""

    def __init__(
        self,
        root: Path,
        names: list[str],
        classes: tuple[str, ...],
        ignored: Mapping[str, int],
        config: FolderConfig,
        split: Split,
        augment: bool,
    ) -> None:
        self.root, self.names, self.classes, self.split = root, names, classes, split
        self.ignored, self.val_share = ignored, config.val_share
        self.transform = Transform(config, augment=augment)
        self.size, self.flip = self.transform.hw, self.transform.flip
        self.caption = Caption(config, classes)
        self.texts = self.caption.given
        self._label = {name: label for label, name in enumerate(classes)}

    def __len__(self) -> int:
        return len(self.names)

    def sample(self, index: int, epoch: int = 0, seed: int = 0) -> Sample:
        name = self.names[index]
        image = images.read(self.root / name, shown(name))
        pixels = self.transform(image, index, epoch, seed)
        label = self._label_of(name)
        text = self.caption(label, shown(name))
        return Sample(index, pixels, label, shown(name), text=text)

    def raw(self, index: int) -> Raw:
        name = self.names[index]
        data = images.content(self.root / name, shown(name))
        return Raw(shown(name), data, self._label_of(name))

    def record(self) -> dict[str, Any]:
        """`manifest` covers names and file sizes; a missing file has size -1."""
        lines = (f"{name} {file_size(self.root / name)}" for name in self.names)
        return {
            "kind": "folder",
            "source": str(self.root),
            "split": self.split,
            "val_share": self.val_share,
            "count": len(self),
            "classes": len(self.classes),
            "ignored": sum(self.ignored.values()),
            **self.transform.record(),
            **self.caption.record(),
            "manifest": manifest_hash(lines),
        }

    def _label_of(self, name: str) -> int:
        folder, slash, _ = name.partition("/")
        return self._label[folder] if slash else UNLABELED


def shown(name: str) -> str:
    """A file name that can be printed and written as JSON, odd bytes escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def files_below(
    root: str, endings: tuple[str, ...], kind: str, what: str
) -> tuple[list[str], dict[str, int]]:
    """(relative paths of all files of these endings, sorted bytewise; how many files of other
    endings were left out)."""
    if not Path(root).expanduser().is_dir():
        raise DataError(f"data.{kind} {root}: no such folder; expected a folder of {what}s")
    names: list[str] = []
    ignored: Counter[str] = Counter()
    base, dead = Path(root).expanduser(), []
    for file in walk(root):
        ending = ending_of(file)
        if ending in endings:
            names.append(file)
            continue
        ignored[ending] += 1
        if not os.path.exists(base / file):  # it may have been a folder of images
            dead.append(file)
    if dead:
        log.warning(
            "data.%s %s: %d links to nothing are left out, the first is %s; if they were folders, "
            "mend them",
            kind,
            root,
            len(dead),
            shown(dead[0]),
        )
    if not names:
        endings_found = f": {endings_text(ignored)}" * bool(ignored)
        raise DataError(
            f"data.{kind} {root}: no {what} in it ({sum(ignored.values())} other files"
            f"{endings_found}); expected files ending in {' '.join(endings)}, one sub-folder per "
            f"class"
        )
    return sorted(names, key=os.fsencode), dict(ignored)


def _list(place: str, config: FolderConfig) -> Listed:
    return list_folder(place, ENDINGS, "folder", "image")


def _classes(found: Listed) -> tuple[str, ...]:
    return tuple(sorted({label for label in found.labels if label}, key=os.fsencode))


def _known(val: tuple[str, ...], train: tuple[str, ...], config: Any) -> tuple[str, ...]:
    """The training classes, if the validation folder has no others."""
    for name in val:
        if name not in train:
            raise DataError(
                f"data.{config.kind} {config.val_path}: class '{shown(name)}' is not one of the "
                f"{len(train)} classes of {config.path}; name the classes alike"
            )
    return train
