"""Clips of a folder of videos, or of a csv that lists them: `frames` frames of each.

- A folder: as for images, the class is the first sub-folder, and samples are sorted bytewise.
- A csv: one clip per row, in the order of the rows; paths are relative to the csv's folder. Classes
  are the labels that occur, sorted (as numbers if all are); an empty label is unlabeled (-1).
- One sample per file: the beginning of its clip is sampled anew each epoch (`start: random`).
- A file with fewer frames than a clip needs is a bad sample, unless `short` is pad or loop. Of a
  file that is cut off, what decodes before the damage counts; nothing is ever made up. No clip
  spans frames that do not decode or a clock that restarts (joined recordings). What of a file is
  not used is said once (`Sample.note`).
The first access to a file reads it once from end to end (decoding it only if its times cannot be
believed, as those of AVI): its index is then kept.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator
from torch import Tensor

from vistok.config.registry import register
from vistok.core.errors import InputError
from vistok.core.rng import Rng
from vistok.data.base import (
    UNLABELED,
    BadSample,
    DataError,
    Dataset,
    Sample,
    Split,
    augments,
    file_size,
    manifest_hash,
)
from vistok.data.captions import Caption
from vistok.data.decode.transforms import Transform, TransformConfig
from vistok.data.decode.video import clips
from vistok.data.kinds.class_names import occurring
from vistok.data.kinds.csv_table import missing_column, read_table
from vistok.data.kinds.folder import Listed, check_places, list_folder, open_split, shown

log = logging.getLogger(__name__)

ENDINGS = (
    *(".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".m1v", ".m2v", ".ts"),
    *(".m2ts", ".m2t", ".mts", ".vob", ".ogv", ".ogm", ".flv", ".f4v", ".wmv", ".asf", ".3gp"),
    *(".3g2", ".gif"),
)
_KEPT = 2**21  # frames of which each process keeps the index (25 bytes a frame)


class VideoConfig(TransformConfig):
    """Clips of videos: folders with one sub-folder per class, or a csv."""

    kind: Literal["video"] = "video"
    path: str | None = None
    """Folder, csv or single video of the training split (and of the validation share)."""
    val_path: str | None = None
    """Folder, csv or single video of the validation split."""
    val_share: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Share of `path` held out for validation, by a stable hash of each path (or group)."""
    path_column: str = "path"
    """csv: column of the files."""
    label_column: str | None = "label"
    """csv: column of the class names. `label` may be missing; null: unlabeled."""
    group_column: str | None = None
    """csv: column of the source; `val_share` keeps all clips of one source in one split."""
    frames: int = Field(default=16, ge=1, le=2**12)
    """Frames of a clip, T."""
    stride: int = Field(default=1, ge=1, le=2**20)
    """Every stride-th frame is taken."""
    fps: float | None = Field(default=None, gt=0.0)
    """Frames per second of the clip, instead of `stride`: the nearest frame of the file by time
    (one may be taken twice if the file has fewer)."""
    start: Literal["random", "first", "middle"] = "random"
    """Beginning of a clip; `random` is for training, validation then takes the middle."""
    pad_frames: Literal["none", "repeat"] = "none"
    """Files too short for a clip, where `short` is null: `none` refuses, `repeat` pads them."""
    short: Literal["refuse", "pad", "loop"] | None = None
    """Files too short for a clip. `refuse`: bad samples; `pad`: their last frame is repeated;
    `loop`: they begin again. null: as `pad_frames` says."""
    decoder: clips.Decoder = "auto"
    """torchcodec if it can be used, else PyAV; or one of them."""

    @model_validator(mode="after")
    def _places(self) -> VideoConfig:
        check_places(self, "a folder, a csv or one video")
        if self.fps is not None and self.stride != 1:
            raise InputError(f"fps={self.fps} and stride={self.stride} contradict; give one")
        if self.short is not None and self.pad_frames != "none":
            raise InputError(
                f"short={self.short} and pad_frames={self.pad_frames} say the same; give short"
            )
        places = [place for place in (self.path, self.val_path) if place is not None]
        if self.group_column is not None and not all(_is_csv(place) for place in places):
            raise InputError(f"group_column={self.group_column} needs a csv; got {places}")
        return self

    @property
    def shorter(self) -> str:
        """`short`, or what `pad_frames` means."""
        return self.short or {"none": "refuse", "repeat": "pad"}[self.pad_frames]


@register("data", VideoConfig)
class Video:
    """The data part `video`."""

    def __init__(self, config: VideoConfig) -> None:
        self.config = config

    def open(self, split: Split, augment: bool | None = None) -> Dataset:
        """List the files of a split; DataError if they are missing, none, or cannot be decoded.

        Without augmentation a random start becomes the middle.
        """
        found, rows, classes = open_split(self.config, split, _list, _classes, "clip")
        augment = augments(split, augment)
        return VideoDataset(found, rows, classes, self.config, split, augment)


class VideoDataset(Dataset):
    """Clips [3, T, H, W] of the files `rows` of what is listed."""

    def __init__(
        self,
        listed: Listed,
        rows: Sequence[int],
        classes: tuple[str, ...],
        config: VideoConfig,
        split: Split,
        augment: bool,
    ) -> None:
        self.config, self.split, self.classes = config, split, classes
        self.root, self.ignored = listed.root, listed.ignored
        self.names = [listed.names[i] for i in rows]
        number = {"": UNLABELED} | {name: label for label, name in enumerate(classes)}
        self.labels = [number[listed.labels[i]] for i in rows]
        self.caption = Caption(config, classes)
        self.texts = self.caption.given
        self.transform = Transform(config, augment=augment)
        self.size, self.flip, self.frames = self.transform.hw, self.transform.flip, config.frames
        fixed = config.start == "random" and not augment
        self.start = "middle" if fixed else config.start
        self.decoded_by = clips.choose(config.decoder)[1]
        self._forget()

    def __len__(self) -> int:
        return len(self.names)

    def _forget(self) -> None:
        # By (file, decoded or not); the one used last at the end.
        self._kept: OrderedDict[tuple[str, bool], clips.Probe] = OrderedDict()
        self._room = _KEPT

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": OrderedDict(), "_room": _KEPT}

    def sample(self, index: int, epoch: int = 0, seed: int = 0) -> Sample:
        file, name = self.names[index], shown(self.names[index])
        draws = float(Rng(seed, "clip", epoch).generator(index).random())
        place = {"random": draws, "first": 0.0, "middle": 0.5}[self.start]

        def take(probe: clips.Probe) -> tuple[Tensor, float, str]:
            pixels, sizes = self._read(probe, place, name, (index, epoch, seed))
            return pixels, probe.fps, "; ".join(filter(None, (probe.remarks, sizes)))

        pixels, rate, note = clips.robust(
            take, self.probe(file), lambda: self.probe(file, decode=True), name
        )
        fps = self.config.fps or rate / self.config.stride
        label = self.labels[index]
        text = self.caption(label, name)
        return Sample(index, pixels, label, name, fps=fps, text=text, note=note)

    def record(self) -> dict[str, Any]:
        """`manifest` covers names, file sizes and labels; a missing file has size -1."""
        config = self.config
        lines = (
            f"{name} {file_size(self.root / name)} {label}"
            for name, label in zip(self.names, self.labels, strict=True)
        )
        return {
            "kind": "video",
            "source": str(self.root),
            "split": self.split,
            "val_share": config.val_share,
            "group_column": config.group_column,
            "count": len(self),
            "classes": len(self.classes),
            "ignored": sum(self.ignored.values()),
            "frames": config.frames,
            "stride": config.stride if config.fps is None else None,
            "fps": config.fps,
            "start": self.start,
            "pad_frames": {"pad": "repeat", "refuse": "none"}.get(config.shorter, config.shorter),
            "decoder": self.decoded_by,
            **self.transform.record(),
            **self.caption.record(),
            "manifest": manifest_hash(lines),
        }

    def wanted(self, probe: clips.Probe, name: str, place: float = 0.0) -> np.ndarray:
        """[T] int64: the frames of the clip that begins at `place` (0..1) of a file.

        BadSample if it has too few in a row, unless the last one may be repeated.
        """
        config = self.config
        shape = (config.frames, config.stride, config.fps)
        (start, stop), place = part_of(probe, *shape, place)
        count = stop - start
        wanted = take(probe.cut(start, stop), count, *shape, place)
        if wanted[-1] >= count and config.shorter == "refuse":
            rate = f"{config.fps:g} fps" if config.fps else f"stride {config.stride}"
            row = " in a row" * (len(probe.parts) > 1)
            raise BadSample(
                name,
                f"{count} frames{row} at {probe.fps:g} fps found, {config.frames} at {rate} "
                f"wanted; shorten the clips or set short=pad or short=loop",
            )
        if config.shorter == "loop" and wanted[-1] >= count:
            # The beginning follows the last frame, one frame's time (or stride) after it.
            there = wanted[wanted < count]
            return there[np.arange(len(wanted)) % len(there)] + start
        return wanted.clip(max=count - 1) + start

    def _read(
        self, probe: clips.Probe, place: float, name: str, keys: tuple[int, int, int]
    ) -> tuple[Tensor, str]:
        """(the clip [3, T, H, W] that begins at `place`, a remark if its frames change their size).

        keys: (index, epoch, seed).
        """
        wanted = self.wanted(probe, name, place)
        numbers, places = np.unique(wanted, return_inverse=True)
        path = self.root / self.names[keys[0]]
        sizes: list[str] = []

        def measured() -> Iterator[np.ndarray]:
            for frame in clips.frames(path, probe, numbers, self.config.decoder, name):
                size = f"{frame.shape[1]}x{frame.shape[0]}"
                if size not in sizes:
                    sizes.append(size)
                yield frame

        pixels = self.transform.clip(measured(), *keys)
        said = len(sizes) == 1 or len(probe.sizes) > 1
        remark = "" if said else f"its frames change their size ({', '.join(sizes)})"
        return pixels if len(numbers) == len(wanted) else pixels[:, places], remark

    def probe(self, file: str, decode: bool = False) -> clips.Probe:
        """The index of a listed file, kept until the limit of kept frames is reached.

        decode: of what decodes before the first damage, see `clips.probe`.
        """
        probe = self._kept.pop((file, decode), None)
        if probe is None:
            probe = clips.probe(self.root / file, shown(file), decode=decode)
            self._room -= probe.frames
        self._kept[file, decode] = probe
        while self._room < 0 and len(self._kept) > 1:
            self._room += self._kept.popitem(last=False)[1].frames
        return probe


def take(
    probe: clips.Probe, count: int, frames: int, stride: int, fps: float | None, place: float
) -> np.ndarray:
    """[T] int64, rising: the frames of a clip that begins at `place`, 0 <= place < 1, of all
    possible beginnings. If there is none it begins at 0, and numbers >= count are not there."""
    begins = max(1, beginnings(probe, count, frames, stride, fps))
    if fps is None:
        return int(place * begins) + np.arange(frames) * stride
    # Frame i is shown until i + 1: the nearest to any time up to half a frame after it.
    times, offsets = probe.times[:count], np.arange(frames) / fps
    last = _last(probe, count)
    asked = times[int(place * begins)] + offsets
    after = np.searchsorted(times, asked).clip(1, count - 1) if count > 1 else np.zeros_like(asked)
    after = after.astype(np.int64)
    before = (after - 1).clip(0)
    nearer = asked - times[before] <= times[after] - asked + 1e-6  # a tie: the earlier
    return np.where(asked > last, count, np.where(nearer, before, after))


def beginnings(probe: clips.Probe, count: int, frames: int, stride: int, fps: float | None) -> int:
    """Number of frames at which a clip can begin that ends within the first `count`."""
    if fps is None:
        return max(0, count - (frames - 1) * stride)
    ends = probe.times[:count] + (frames - 1) / fps
    return int(np.searchsorted(ends, _last(probe, count), side="right"))


def part_of(
    probe: clips.Probe, frames: int, stride: int, fps: float | None, place: float
) -> tuple[tuple[int, int], float]:
    """(the part of a file, place within it) of a clip that begins at `place` of all beginnings in
    all parts; the longest part if a clip fits into none."""
    parts = probe.parts
    fits = [beginnings(probe.cut(*part), part[1] - part[0], frames, stride, fps) for part in parts]
    if len(parts) == 1 or not any(fits):
        return max(parts, key=lambda part: part[1] - part[0]), place
    ends, chosen = np.cumsum(fits), place * sum(fits)
    n = int(np.searchsorted(ends, chosen, side="right"))
    return parts[n], min(1.0 - 1e-9, float(chosen - ends[n] + fits[n]) / fits[n])


def _last(probe: clips.Probe, count: int) -> float:
    """Seconds up to which the last of `count` frames is the nearest one."""
    return probe.times[count - 1] + 0.5 / probe.fps + 1e-6


def _is_csv(place: str) -> bool:
    return place.lower().endswith(".csv")


def _list(place: str, config: VideoConfig) -> Listed:
    path = Path(place).expanduser()
    if _is_csv(place):
        return _rows(path, config)
    if path.is_file():
        return Listed(path.parent, [path.name], [""], [path.name], {})
    return list_folder(place, ENDINGS, "video", "video")


def _rows(path: Path, config: VideoConfig) -> Listed:
    """The rows of a csv; DataError naming the column or row that is missing."""
    columns, rows = read_table(path, "video")
    needed = [config.path_column, config.label_column, config.group_column]
    if config.label_column == "label" and "label" not in (name.lower() for name in columns):
        needed[1] = None
        others = [name for name in columns if name not in needed]
        if others:
            log.warning(
                "data.video %s: no column 'label', so the clips are unlabeled; it has %s: set "
                "label_column to one of them, or to null",
                path,
                ", ".join(others),
            )
    for column in needed:
        if column is not None and column not in columns:
            raise missing_column(path, "video", column, columns)
    if not rows:
        raise DataError(f"data.video {path}: no rows; expected one clip per row")
    for number, row in enumerate(rows, start=1):
        if any(not row[c] for c in (config.path_column, config.group_column) if c is not None):
            raise DataError(f"data.video {path}: row {number} lacks a path or a group; give both")
    names = [row[config.path_column] for row in rows]
    labels = [row[needed[1]] or "" if needed[1] else "" for row in rows]
    groups = [row[config.group_column] for row in rows] if config.group_column else names
    return Listed(path.parent, names, labels, groups)


def _classes(listed: Listed) -> tuple[str, ...]:
    """The labels that occur; whole numbers in the order of numbers."""
    return occurring(label for label in listed.labels if label)
