"""Inputs of `vistok check` (paths, globs, configs) -> data sets to scan, shard by shard.

The kind of data is taken from what a path holds, or from `kind=`; then every path is a config of
that kind, over which `key=value` is laid as in training.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vistok.config import ConfigError, read_yaml, validate_part
from vistok.config.overrides import parse
from vistok.config.plugins import recorded
from vistok.config.registry import build
from vistok.data.addresses import check_addresses
from vistok.data.base import DataError, Dataset
from vistok.data.check.contents import contents
from vistok.data.check.tar_images import TarImages
from vistok.data.kinds import parquet_shards, tar_shards
from vistok.data.kinds.class_names import ClassNumbers
from vistok.data.kinds.folder import FolderConfig, FolderDataset
from vistok.data.kinds.huggingface_config import HuggingFaceConfig
from vistok.data.kinds.parquet import ParquetConfig, ParquetDataset
from vistok.data.kinds.parquet_labels import label_classes
from vistok.data.kinds.parquet_shards import ParquetShards
from vistok.data.kinds.video import ENDINGS as VIDEO
from vistok.data.kinds.video import VideoConfig
from vistok.data.kinds.webdataset import WebDatasetConfig
from vistok.data.overlap import overlap

_PLACES = {"parquet": "train", "webdataset": "train"}  # key of a path, by kind; else `path`


@dataclass
class Inputs:
    """Data sets to scan, each with the prefix of its samples' names, and what did not open."""

    open: list[tuple[str, Dataset]] = field(default_factory=list)
    troubles: list[tuple[str, str]] = field(default_factory=list)  # (shard or member, reason)
    left_out: dict[str, int] = field(default_factory=dict)  # files of no data set, by ending

    def leave_out(self, endings: dict[str, int]) -> None:
        for ending, count in endings.items():
            self.left_out[ending] = self.left_out.get(ending, 0) + count


def open_inputs(paths: Sequence[str], overrides: Sequence[str] = ()) -> Inputs:
    """The data sets behind paths as a user names them.

    Args:
        paths: a folder of images, parquet files or globs, .tar shards, single images, a folder
            or csv of clips, a data set saved by Hugging Face's library, a token cache, or one
            YAML config with a key `data`. None: the overrides are the whole config.
        overrides: key=value of the data config; `kind` chooses how all paths are read.

    A shard that cannot be opened is listed in `troubles`; DataError or ConfigError if there is
    nothing to scan.
    """
    found, given = Inputs(), parse(overrides)
    kind = given.pop("kind", None)
    if not paths:
        if kind is None:
            raise ConfigError("nothing to scan; give a path, or kind=... of a data config")
        _open_config(found, _config(kind, given))
    for path in paths:
        if path.lower().endswith((".yaml", ".yml")):
            tree = read_yaml(path, [f"data.{item}" for item in overrides])
            if not isinstance(tree.get("data"), dict):
                raise ConfigError(f"{path}: data: missing; expected e.g. {{kind: photos}}")
            with recorded(tree.get("plugins"), path):
                config = validate_part("data", tree["data"], f"{path}: data")
            if os.path.basename(path) == "config.yaml":  # of a run, perhaps somebody else's
                check_addresses(config, path, given)
            _open_config(found, config)
        elif kind is not None:
            _open_place(found, kind, path, given)
        elif path.lower().endswith(".parquet"):
            _open_place(found, "parquet", path, given)
        elif path.lower().endswith(".tar"):
            _open_place(found, "webdataset", path, given)
        elif os.path.isdir(path):
            _open_folder(found, path, given)
        elif path.lower().endswith((".csv", *VIDEO)) and not path.lower().endswith(".gif"):
            _open_place(found, "video", path, given)
        elif os.path.lexists(path):  # what is no image is a finding
            file = Path(path)
            config = _config("folder", {"path": os.path.dirname(path) or "."}, given)
            lone = FolderDataset(file.parent, [file.name], (), {}, config, "train", False)
            found.open.append(("", lone))
        else:
            raise DataError(
                f"{path}: no such file or folder; expected a folder of images, .parquet or .tar "
                f"files, clips, or a YAML config with a key `data`"
            )
    return found


def _config(kind: str, *settings: dict[str, Any]) -> Any:
    """A data config of a kind; later settings win."""
    tree: dict[str, Any] = {"kind": kind}
    for one in settings:
        tree |= one
    return validate_part("data", tree, "data")


def _open_place(found: Inputs, kind: str, path: str, given: dict[str, Any]) -> None:
    key = _PLACES.get(kind, "path") if isinstance(kind, str) else "path"
    _open_config(found, _config(kind, {key: path}, given))


def _open_folder(found: Inputs, path: str, given: dict[str, Any]) -> None:
    """Everything in a folder that is data; files of no kind are counted as left out."""
    kinds, left_out = contents(path)
    for kind, files in kinds.items():
        if kind in _PLACES:  # all shards are one data set
            places = [{_PLACES[kind]: tuple(files)}]
        elif kind in ("folder", "video"):
            places = [{"path": path}]
        else:  # folders that one program wrote as a whole
            places = [{"path": file} for file in files]
        for place in places:
            _open_config(found, _config(kind, place, given), others=False)
    found.leave_out(left_out)


def _open_config(found: Inputs, config: Any, others: bool = True) -> None:
    """Both splits of a data config, the validation split's names marked.

    others: count the files of a folder that are left out.
    """
    if isinstance(config, ParquetConfig):  # file by file: a damaged one is a finding
        _open_parquet(found, config)
        return
    if isinstance(config, WebDatasetConfig):
        for prefix, patterns in (("", config.train), ("val: ", config.val)):
            if patterns:
                _open_tars(found, tar_shards.find(patterns), config, prefix)
        return
    if isinstance(config, FolderConfig):
        for prefix, path in (("", config.path), ("val: ", config.val_path)):
            if path:
                alone = {"path": path, "val_path": None, "val_share": None}
                opened = build(config.model_copy(update=alone)).open("train", augment=False)
                found.open.append((prefix, opened))
                found.leave_out(opened.ignored if others else {})
        return
    part, clips = build(config), isinstance(config, VideoConfig)
    if not clips or config.path is not None:
        opened = part.open("train", augment=False)
        found.open.append(("", opened))
        found.leave_out(opened.ignored if clips and others else {})
    val = any(getattr(config, name, None) for name in ("val_path", "val_share", "val_count"))
    if isinstance(config, HuggingFaceConfig):
        _open_validation(found, part, opened)
    elif val:
        found.open.append(("val: ", part.open("val", augment=False)))


def _open_validation(found: Inputs, part: Any, train: Dataset) -> None:
    """The validation split of a Hugging Face data set, if it has the one that is meant."""
    if part.config.val_split is None:
        return
    try:
        val = part.open("val", augment=False)
    except DataError as error:
        if "val_split" in part.config.model_fields_set:
            found.troubles.append(("val", str(error)))
        return
    same = overlap(train, val)
    if same is None:
        found.open.append(("val: ", val))
    elif "val_split" in part.config.model_fields_set:
        found.troubles.append(("val", same))


def _open_parquet(found: Inputs, config: ParquetConfig) -> None:
    """Each shard as a data set of its own, with the classes of all; damaged ones are troubles."""
    column = config.label_column
    columns = [config.image_column, *([column] if column else [])]
    own: dict[Path, ClassNumbers] = {}
    opened: list[tuple[str, Path, ParquetShards]] = []
    for prefix, patterns in (("", config.train), ("val: ", config.val)):
        for file in parquet_shards.find(patterns) if patterns else ():
            try:
                shards = ParquetShards([file], columns, config.row_groups_mb)
                if column:
                    own[file] = label_classes([file], [], column, config.classes)
            except DataError as error:
                reason = str(error).removeprefix(f"data.parquet {file}: ")
                found.troubles.append((f"{prefix}{file}", reason))
            else:
                opened.append((prefix, file, shards))
    numbers: dict[Path, ClassNumbers] = {}
    if column and opened:
        train = [file for prefix, file, _ in opened if not prefix]
        others = [file for prefix, file, _ in opened if prefix]
        try:
            joint = label_classes(train or others, others, column, config.classes)
            numbers = {file: joint for _, file, _ in opened}
        except DataError as error:  # each by itself is good, so they contradict each other
            found.troubles.append(("labels", str(error).removeprefix("data.parquet ")))
            numbers = own
    alone = config.model_copy(update={"val_share": None, "cache": False})
    for prefix, file, shards in opened:
        if len(shards):
            found.open.append(
                (prefix, ParquetDataset(shards, numbers.get(file), alone, "train", False))
            )
        else:
            found.troubles.append((f"{prefix}{file}", "no rows in it"))


def _open_tars(found: Inputs, files: list[str], config: WebDatasetConfig, prefix: str) -> None:
    for file in files:
        name = f"{prefix}{file.rpartition('/')[2]}"
        try:
            opened = TarImages(file, config)
        except DataError as error:
            found.troubles.append((f"{prefix}{file}", str(error).removeprefix(f"{file}: ")))
            continue
        found.open.append((prefix, opened))
        found.troubles += [(f"{name}/{member}", reason) for member, reason in opened.troubles]
        if not len(opened):
            found.troubles.append((f"{prefix}{file}", "no samples in it"))
