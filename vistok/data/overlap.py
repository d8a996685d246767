"""Training samples in the validation split: said, since a score on them is no validation.

Compared are the places of files, and of files of equal size their bytes, of a sample of the
validation files. Rows that a share divides, and crops or re-encoded copies of an image, are not
looked for.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vistok.data.kinds import tar_shards
from vistok.data.kinds.folder import FolderDataset
from vistok.data.kinds.huggingface import RowDataset, RowStream
from vistok.data.kinds.parquet import ParquetDataset
from vistok.data.kinds.tokens import CachedTokensDataset
from vistok.data.kinds.video import VideoDataset
from vistok.data.kinds.webdataset import TarDataset, TarStream

_MOST_FILES = 200_000  # beyond it only places are compared: asking for sizes takes minutes
_LOOKED_AT = 256  # validation files whose bytes may be compared
_TWINS = 8  # training files of one size that are compared with one of them
_ENDS = 2**14  # bytes at either end of a file that are compared


def overlap(train: Any, val: Any) -> str | None:
    """One line if samples of `val` are known to be in `train`, too; else None.

    train, val: opened splits of one data config.
    """
    if train.sets:
        return next((found for one in train.sets if (found := overlap(one, val))), None)
    if isinstance(train, CachedTokensDataset) and isinstance(val, CachedTokensDataset):
        return _caches(train, val)
    if isinstance(train, RowDataset | RowStream) and isinstance(val, RowDataset):
        return _rows(train, val)
    mine, theirs = _files(train), _files(val)
    if not mine or not theirs:
        return None
    unit = "files" if isinstance(train, FolderDataset | VideoDataset) else "shards"
    places = set(_places(mine))
    common = sum(place in places for place in _places(theirs))
    if common:
        return _line(f"{common} of {len(theirs)} validation {unit} are training {unit}")
    if max(len(mine), len(theirs)) > _MOST_FILES:
        return None
    looked_at = theirs[:: -(-len(theirs) // _LOOKED_AT)]
    copies = _copies(mine, looked_at)
    if not copies:
        return None
    seen = f"{copies} of {len(looked_at)} validation {unit} that were looked at"
    return _line(f"{seen} are copies of training {unit} (`vistok check` names them)")


def _line(what: str) -> str:
    return f"validation says little about unseen data: {what}"


def _caches(train: CachedTokensDataset, val: CachedTokensDataset) -> str | None:
    """The same for token caches, by their places and by the images that they were made of."""
    if train.val_share is not None:
        return None
    if os.path.realpath(train.cache.path) == os.path.realpath(val.cache.path):
        return _line("the validation cache is the training cache")
    images = [one.cache.meta["source"] for one in (train, val)]
    known = [one.get("manifest") if isinstance(one, dict) else None for one in images]
    if known[0] is None or known[0] != known[1]:
        return None
    return _line("the validation tokens were made of the training images")


def _files(data: Any) -> list[Path]:
    """The local files that hold a split; [] if they are not known, or if a share divides them."""
    if isinstance(data, FolderDataset | VideoDataset):
        return [data.root / name for name in data.names]
    if isinstance(data, ParquetDataset):
        return [] if data.config.val_share else [shard.path for shard in data.shards.shards]
    if isinstance(data, TarDataset | TarStream):
        return [Path(name) for name in data.tars.shards if not tar_shards.protocol(name)]
    return []


def _places(paths: Iterable[Path]) -> Iterator[str]:
    """The paths of files with the links of their folders followed."""
    folders: dict[Path, str] = {}
    for path in paths:
        if path.parent not in folders:
            folders[path.parent] = os.path.realpath(path.parent)
        yield os.path.join(folders[path.parent], path.name)


def _rows(train: RowDataset | RowStream, val: RowDataset) -> str | None:
    """The same for splits of one Hugging Face data set, which may be slices: train[90%:]."""
    names = train.config.train_split, val.config.val_split
    mine, theirs = (str(name).partition("[") for name in names)
    if isinstance(train, RowDataset) and train.unsplit == val.unsplit != ():
        return _line("the saved folder has no splits, so validation data are training data")
    if None in names or mine[0] != theirs[0] or (mine[1] and names[0] != names[1]):
        return None  # how two slices lie is not looked at
    return _line(f"the split '{names[1]}' is, or lies in, the training split '{names[0]}'")


def _copies(train: Sequence[Path], val: Sequence[Path]) -> int:
    """How many of the files `val` have the bytes of one of `train`."""
    wanted = {size for path in val if (size := _size(path))}
    twins: dict[int, list[Path]] = {}
    for path in train:
        size = _size(path)
        if size in wanted and len(twins.setdefault(size, [])) < _TWINS:
            twins[size].append(path)
    digests = {size: {_digest(path) for path in paths} - {None} for size, paths in twins.items()}
    found = ((digests.get(_size(path)), path) for path in val)
    return sum(known is not None and _digest(path) in known for known, path in found)


def _size(path: Path) -> int:
    """Bytes of a plain file; 0 if it is none, or cannot be asked for."""
    try:
        status = path.stat()
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _digest(path: Path) -> bytes | None:
    """Hash of both ends of a file; None if it cannot be read."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open(path, "rb") as file:
            digest.update(file.read(_ENDS))
            file.seek(max(0, os.fstat(file.fileno()).st_size - _ENDS))
            digest.update(file.read(_ENDS))
    except OSError:
        return None
    return digest.digest()
