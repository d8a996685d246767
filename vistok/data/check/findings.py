"""Findings of a scan: gathered sample by sample, then given as a JSON tree and a table.

Kept of each sample: its name, two hashes, its sizes and its class, about 100 bytes in all. Exit
code 0: nothing found; 1: usable, with findings; 2: not one usable sample.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vistok.core.text import printable
from vistok.data.base import UNLABELED
from vistok.data.check.clip_facts import ClipFacts, clip_lines, clip_report
from vistok.data.kinds.walk import UNREAD, endings_text

ASPECT = 3.0  # shapes beyond 1:3 or 3:1 are listed
_SHOWN = 3  # names of a finding in the table
_TITLES = {
    "shards": "damaged or odd shards",
    "unreadable": "unreadable",
    "partial": "a part of the file cannot be used",
    "labels": "label troubles",
    "same_bytes": "same file twice",
    "same_pixels": "same pixels, other file",
    "constant": "constant images",
    "unread": "of kinds that are not read, left out",
    "extreme_shapes": f"shapes beyond 1:{ASPECT:g}",
    "misnamed": "content is not what the ending says",
    "odd": "odd, but usable",
}
_ENDINGS = {"JPEG": (".jpg", ".jpeg"), "PNG": (".png",), "WEBP": (".webp",), "BMP": (".bmp",)}
_ENDINGS["GIF"] = (".gif",)


@dataclass(frozen=True)
class Scanned:
    """Facts about one sample that was read. `problem`: why it cannot be used, "" if it can."""

    name: str
    problem: str = ""
    trouble: str = ""  # with its label
    label: int = UNLABELED
    bytes: int = 0  # of the file; 0 = not a file
    stored: bytes = b""  # hash of the file
    pixels: bytes = b""  # hash of the decoded image
    size: tuple[int, int] = (0, 0)  # width, height, upright
    format: str = ""
    mode: str = ""
    orientation: int | None = None
    constant: bool = False
    partial: str = ""  # what of the file cannot be used, "" if all can
    odd: str = ""  # what to know of a file that is used whole
    clip: ClipFacts | None = None


class Findings:
    """Gathers scanned samples; `report` gives all of it as JSON.

    troubles: (shard or member, reason) of what could not be opened. classes: class names of each
    data set that is scanned. left_out: number of files that belong to none, by ending.
    """

    def __init__(
        self,
        troubles: Sequence[tuple[str, str]] = (),
        classes: Sequence[Sequence[str]] = (),
        left_out: Mapping[str, int] | None = None,
    ) -> None:
        self.left_out = dict(left_out or {})
        self._lists: dict[str, list[Any]] = {key: [] for key in _TITLES}
        self._lists["shards"] = [_item(*trouble) for trouble in troubles]
        self._lists["unread"] = [
            _item(ending, f"{count} files")
            for ending, count in sorted(self.left_out.items())
            if ending in UNREAD
        ]
        self._names, self._ends = bytearray(), array("Q")
        self._stored, self._pixels = bytearray(), bytearray()
        self._bytes, self._width, self._height = array("Q"), array("I"), array("I")
        self._class, self._classes = array("i"), {n: 0 for names in classes for n in names}
        self._numbers = {name: number for number, name in enumerate(self._classes)}
        self._counts = {key: Counter() for key in ("formats", "modes", "orientations")}
        self._clips: list[tuple[str, ClipFacts]] = []
        self.samples = 0

    def add(self, sample: Scanned, prefix: str = "", classes: Sequence[str] = ()) -> None:
        """Count one sample. prefix: put before its name; classes: those of its data set."""
        name = prefix + sample.name
        self.samples += 1
        if sample.trouble:
            self._lists["labels"].append(_item(name, sample.trouble))
        if sample.problem:
            self._lists["unreadable"].append(_item(name, sample.problem))
            return
        group = classes[sample.label] if 0 <= sample.label < len(classes) else None
        self._names += name.encode("utf-8", "surrogateescape")
        self._ends.append(len(self._names))
        self._class.append(UNLABELED if group is None else self._numbers[group])
        self._stored += sample.stored or bytes(16)
        self._pixels += sample.pixels
        if group is not None:
            self._classes[group] += 1
        if sample.bytes:
            self._bytes.append(sample.bytes)
        width, height = sample.size
        if width:
            self._width.append(width)
            self._height.append(height)
            if max(width, height) > ASPECT * min(width, height):
                self._lists["extreme_shapes"].append(_item(name, f"{width}x{height}"))
        if sample.clip is not None:
            self._clips.append((name, sample.clip))
        for key, reason in (("partial", sample.partial), ("odd", sample.odd)):
            if reason:
                self._lists[key].append(_item(name, reason))
        if sample.constant:
            self._lists["constant"].append(_item(name, f"{width}x{height}"))
        if sample.format and _misnamed(name, sample.format):
            self._lists["misnamed"].append(_item(name, f"holds {sample.format}"))
        for key, value in (("formats", sample.format), ("modes", sample.mode)):
            if value:
                self._counts[key][value] += 1
        if sample.orientation is not None and sample.orientation != 1:
            valid = 1 <= sample.orientation <= 8
            text = f"{sample.orientation}" + " (invalid, taken as upright)" * (not valid)
            self._counts["orientations"][text] += 1

    @property
    def usable(self) -> int:
        return len(self._ends)

    def report(self) -> dict[str, Any]:
        """JSON: counts, distributions, `findings` and `notes` with every name, `exit_code`."""
        lists = {key: list(items) for key, items in self._lists.items()}
        stored = self._twins(self._stored)
        lists["same_bytes"] = [self._group(group) for group in stored]
        lists["same_pixels"] = [
            self._group(group)
            for group in self._twins(self._pixels)
            if len({bytes(self._stored[16 * i : 16 * i + 16]) for i in group}) > 1
            or not any(self._stored[16 * group[0] : 16 * group[0] + 16])
        ]
        unlabeled = sum(1 for group in self._class if group == UNLABELED)
        troubled = {item["name"] for item in lists["labels"]}
        if self._classes and len(troubled) < unlabeled < self.usable:
            lists["labels"] += [
                _item(self._name(i), "has no label, others have one")
                for i, group in enumerate(self._class)
                if group == UNLABELED and self._name(i) not in troubled
            ]
        notes = {key: lists.pop(key) for key in ("extreme_shapes", "misnamed", "odd")}
        width, height = np.array(self._width, np.float64), np.array(self._height, np.float64)
        return {
            "samples": self.samples,
            "usable": self.usable,
            "left_out": sum(self.left_out.values()),
            "left_out_endings": self.left_out,
            "classes": {"count": len(self._classes), "samples": dict(self._classes)},
            "samples_per_class": _spread(n for n in self._classes.values() if n),
            "unlabeled": unlabeled,
            "bytes": _spread(self._bytes) | {"total": sum(self._bytes)},
            "width": _spread(width),
            "height": _spread(height),
            "aspect": _spread(width / np.maximum(height, 1)),
            **clip_report(self._clips, _spread),
            **{key: dict(counts.most_common()) for key, counts in self._counts.items()},
            "findings": lists,
            "notes": notes,
            "exit_code": 2 if not self.usable else 1 if any(lists.values()) else 0,
        }

    def _twins(self, hashes: bytearray) -> list[list[int]]:
        """Groups of samples with the same hash, in order of their first one."""
        keys = np.frombuffer(bytes(hashes), "<u8").reshape(-1, 2)
        order = np.lexsort((keys[:, 1], keys[:, 0]))  # stable: each group is in order
        same = (keys[order][1:] == keys[order][:-1]).all(1) & keys[order][1:].any(1)
        groups: dict[int, list[int]] = {}
        first = -1
        for place in np.flatnonzero(same):
            first = first if place and same[place - 1] else int(order[place])
            groups.setdefault(first, [first]).append(int(order[place + 1]))
        return [groups[key] for key in sorted(groups)]

    def _group(self, group: list[int]) -> dict[str, Any]:
        return {
            "names": [self._name(i) for i in group],
            "labels_differ": len({self._class[i] for i in group}) > 1,
        }

    def _name(self, number: int) -> str:
        start = self._ends[number - 1] if number else 0
        return self._names[start : self._ends[number]].decode("utf-8", "surrogateescape")


def table(report: dict[str, Any]) -> str:
    """The report as text: one fact a line, then each finding with its first names."""
    per_class, classes = report["samples_per_class"], report["classes"]
    empty = sum(1 for count in classes["samples"].values() if not count)
    rows = {
        "samples": f"{report['samples']}, {report['usable']} usable",
        "left out": endings_text(report["left_out_endings"]),
        "classes": f"{classes['count']}" + f", {empty} without a sample" * bool(empty),
        "samples a class": _range(per_class),
        "unlabeled": f"{report['unlabeled']}" * bool(report["unlabeled"]),
        "file size": _range(report["bytes"], _size),
        "total size": _size(report["bytes"]["total"]) * bool(report["bytes"]["total"]),
        "width": _range(report["width"]),
        "height": _range(report["height"]),
        "width / height": _range(report["aspect"], lambda x: f"{x:.3g}"),
        "frames": _range(report["frames"]),
        "seconds": _range(report["seconds"], lambda x: f"{x:.4g}"),
        "frames a second": _range(report["fps"], lambda x: f"{x:.6g}"),
        "codecs": _counts(report["codecs"]),
        "formats": _counts(report["formats"]),
        "modes": _counts(report["modes"]),
        "EXIF orientation": _counts(report["orientations"], "otherwise upright"),
    }
    lines = [f"{key:18} {value}" for key, value in rows.items() if value]
    if report["clips"]:
        lines += ["", "clips", *(printable(line) for line in clip_lines(report))]
    for title, group in (("findings", report["findings"]), ("notes", report["notes"])):
        if any(group.values()):
            lines += ["", title]
        for key, items in group.items():
            if items:
                lines.append(f"  {_TITLES[key]}: {len(items)}")
                lines += [f"    {_shown(item)}" for item in items[:_SHOWN]]
                lines += ["    ..."] * (len(items) > _SHOWN)
    if not any(report["findings"].values()):
        lines += ["", "nothing found"]
    return "\n".join(lines)


def _item(name: str, reason: str) -> dict[str, str]:
    return {"name": name, "reason": reason}


def _misnamed(name: str, format: str) -> bool:
    ending = "." + name.rpartition(".")[2].lower()
    known = any(ending in endings for endings in _ENDINGS.values())
    return known and ending not in _ENDINGS.get(format, ())


def _spread(values: Any) -> dict[str, float]:
    values = np.fromiter(values, np.float64)
    if not len(values):
        return {}
    return {
        "min": float(values.min()),
        "median": float(np.median(values)),
        "max": float(values.max()),
    }


def _range(spread: dict[str, float], form: Any = lambda x: f"{x:.10g}") -> str:
    keys = [key for key in ("min", "median", "max") if key in spread]
    return ", ".join(f"{key} {form(spread[key])}" for key in keys)


def _counts(counts: dict[str, int], rest: str = "") -> str:
    text = ", ".join(f"{key} {count}" for key, count in counts.items())
    return text + f"; {rest}" * bool(text and rest)


def _size(count: float) -> str:
    for unit, bytes_ in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= bytes_:
            return f"{count / bytes_:.3g} {unit}"
    return f"{count:.0f} B"


def _shown(item: dict[str, Any]) -> str:
    if "names" in item:
        names = ", ".join(item["names"][:_SHOWN]) + ", ..." * (len(item["names"]) > _SHOWN)
        text = names + " (labels differ)" * item["labels_differ"]
    else:
        text = f"{item['name']}: {item['reason']}"
    return printable(text)
