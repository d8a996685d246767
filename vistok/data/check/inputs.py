"""Inputs of `vistok check` (paths, globs, configs) -> data sets to scan, shard by shard."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vistok.config import ConfigError, read_yaml, validate_part
from vistok.config.overrides import parse
from vistok.config.registry import build, entries
from vistok.data.addresses import check_addresses
from vistok.data.base import DataError, Dataset
from vistok.data.check.tar_images import TarImages
from vistok.data.kinds import parquet_shards
from vistok.data.kinds.folder import FolderConfig, FolderDataset
from vistok.data.kinds.parquet import ParquetConfig

VIDEO = (".mp4", ".webm", ".mkv", ".avi", ".mov", ".csv")


@dataclass
class Inputs:
    """Data sets to scan, each with the prefix of its samples' names, and what did not open."""

    open: list[tuple[str, Dataset]] = field(default_factory=list)
    troubles: list[tuple[str, str]] = field(default_factory=list)  # (shard or member, reason)
    left_out: int = 0  # files of other endings


def open_inputs(paths: Sequence[str], overrides: Sequence[str] = ()) -> Inputs:
    """The data sets behind paths as a user names them.

    Args:
        paths: a folder of images, parquet files or globs, .tar shards, single images, a folder
            or csv of clips, or one YAML config with a key `data`.
        overrides: key=value of the data config.

    A shard that cannot be opened is listed in `troubles`; DataError or ConfigError if there is
    nothing to scan.
    """
    found, given = Inputs(), parse(overrides)
    for path in paths:
        if path.lower().endswith((".yaml", ".yml")):
            tree = read_yaml(path, [f"data.{item}" for item in overrides])
            if not isinstance(tree.get("data"), dict):
                raise ConfigError(f"{path}: data: missing; expected e.g. {{kind: photos}}")
            config = validate_part("data", tree["data"], f"{path}: data")
            if os.path.basename(path) == "config.yaml":  # of a run, perhaps somebody else's
                check_addresses(config, path, given)
            _open_config(found, config)
        elif path.lower().endswith(".parquet"):
            _open_parquet(found, path, given)
        elif path.lower().endswith(".tar"):
            _open_tars(found, parquet_shards.find(path))
        elif os.path.isdir(path):
            _open_folder(found, path, given)
        elif path.lower().endswith(VIDEO):
            _open_config(found, _video(path, given))
        elif os.path.isfile(path):
            file, config = Path(path), FolderConfig(path=os.path.dirname(path) or ".")
            lone = FolderDataset(file.parent, [file.name], (), 0, config, "train", False)
            found.open.append(("", lone))
        else:
            raise DataError(
                f"{path}: no such file or folder; expected a folder of images, .parquet or .tar "
                f"files, clips, or a YAML config with a key `data`"
            )
    return found


def _config(kind: str, given: dict[str, Any], **place: Any) -> Any:
    return validate_part("data", {"kind": kind, **place, **given}, "data")


def _video(path: str, given: dict[str, Any]) -> Any:
    if "video" not in entries("data"):
        raise DataError(f"{path}: clips; this version has no data kind `video`")
    return _config("video", given, path=path)


def _open_config(found: Inputs, config: Any) -> None:
    """Both splits of a data config, the validation split's names marked."""
    if isinstance(config, ParquetConfig):  # file by file: a damaged one is a finding
        for prefix, patterns in (("", config.train), ("val: ", config.val)):
            if patterns:
                _open_shards(found, parquet_shards.find(patterns), config, prefix)
        return
    if isinstance(config, FolderConfig):
        for prefix, path in (("", config.path), ("val: ", config.val_path)):
            if path:
                alone = {"path": path, "val_path": None, "val_share": None}
                opened = build(config.model_copy(update=alone)).open("train", augment=False)
                found.open.append((prefix, opened))
                found.left_out += opened.ignored
        return
    part = build(config)
    found.open.append(("", part.open("train", augment=False)))
    if any(getattr(config, name, None) for name in ("val", "val_path", "val_share", "val_count")):
        found.open.append(("val: ", part.open("val", augment=False)))


def _open_folder(found: Inputs, path: str, given: dict[str, Any]) -> None:
    try:
        _open_config(found, _config("folder", given, path=path))
        return
    except DataError as error:
        none = error
    files = [p for p in Path(path).rglob("*") if p.is_file() and not p.name.startswith(".")]
    endings = Counter(p.suffix.lower() for p in files)
    if endings[".parquet"]:
        _open_parquet(found, f"{path}/**/*.parquet", given)
    elif endings[".tar"]:
        _open_tars(found, parquet_shards.find(f"{path}/**/*.tar"))
    elif any(endings[ending] for ending in VIDEO[:-1]):
        _open_config(found, _video(path, given))
    else:
        raise none


def _open_parquet(found: Inputs, pattern: str, given: dict[str, Any]) -> None:
    _open_shards(found, parquet_shards.find(pattern), _config("parquet", given, train=pattern), "")


def _open_shards(found: Inputs, files: list[Path], config: ParquetConfig, prefix: str) -> None:
    for file in files:
        alone = {"train": (str(file),), "val": None, "val_share": None}
        try:
            opened = build(config.model_copy(update=alone)).open("train", augment=False)
        except DataError as error:
            found.troubles.append(
                (f"{prefix}{file}", str(error).removeprefix(f"data.parquet {file}: "))
            )
        else:
            found.open.append((prefix, opened))


def _open_tars(found: Inputs, files: list[Path]) -> None:
    for file in files:
        try:
            opened = TarImages(file)
        except DataError as error:
            found.troubles.append((str(file), str(error).removeprefix(f"{file}: ")))
            continue
        found.open.append(("", opened))
        found.troubles += [(f"{file.name}/{name}", reason) for name, reason in opened.troubles]
        if not len(opened):
            found.troubles.append((str(file), "no samples in it"))
