"""Pictures in a tar shard, for a scan: members found by their place in the file, none extracted.

A sample is the run of members whose names agree up to the first dot of the last part, as WebDataset
has it: one picture and, if the shard has labels, one `cls` with the class number. What does not fit
is an entry of `troubles`; nothing is ever written, so a member's name leads nowhere.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vistok.data.base import UNLABELLED, BadSample, DataError, Dataset, Raw, one_line
from vistok.data.folder import ENDINGS, shown

_LABEL_BYTES = 32


@dataclass(frozen=True)
class Member:
    """Where the bytes of one sample lie in the shard."""

    key: str
    start: int
    size: int
    label: int
    trouble: str  # with the label


class TarPictures(Dataset):
    """The whole samples of one shard; `troubles`: (member, reason) of everything else.

    Raises DataError if the file is no tar.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.troubles = path, []
        self.members = self._index()
        top = max((m.label for m in self.members), default=UNLABELLED)
        self.classes = tuple(str(label) for label in range(top + 1))

    def __len__(self) -> int:
        return len(self.members)

    def raw(self, index: int) -> Raw:
        member = self.members[index]
        name = f"{self.path.name}/{member.key}"
        try:
            data = _read(self.path, member.start, member.size)
        except OSError as error:
            raise BadSample(name, f"cannot be read ({error.strerror or error})") from None
        return Raw(name, data, member.label, member.trouble)

    def _index(self) -> list[Member]:
        size, groups, last = self.path.stat().st_size, [], None
        try:
            with tarfile.open(self.path, "r:") as archive:
                while (info := archive.next()) is not None:
                    if info.offset_data + info.size > size:
                        self._cut(info.name, f"{info.size} bytes at {info.offset_data}, of {size}")
                        last = None  # of the last sample, not all is here
                        groups = groups[:-1] if groups and groups[-1][0] == _key(info) else groups
                        break
                    archive.members = []  # else tarfile keeps every header in memory
                    if info.isdir():
                        continue
                    if reason := _stray(info):
                        self.troubles.append((shown(info.name), reason))
                        continue
                    if _key(info) != last:
                        last = _key(info)
                        groups.append((last, []))
                    groups[-1][1].append(info)
        except tarfile.ReadError as error:
            if not groups and not self.troubles:
                raise DataError(
                    f"{self.path}: no tar ({one_line(error)}); expected an uncompressed tar shard"
                ) from None
            self._cut("(after the last whole member)", one_line(error))
        return self._samples(groups)

    def _cut(self, name: str, reason: str) -> None:
        self.troubles.append((shown(name), f"the shard is cut off here ({reason})"))

    def _samples(self, groups: list[tuple[str, list[tarfile.TarInfo]]]) -> list[Member]:
        found, keys = [], set()
        labelled = any(_ending(info) == ".cls" for _, infos in groups for info in infos)
        for key, infos in groups:
            pictures = [info for info in infos if _ending(info) in ENDINGS]
            if key in keys:
                self.troubles.append((shown(key), "the key is there twice; the first one counts"))
            elif len(pictures) != 1:
                self.troubles.append((shown(key), f"has {len(pictures)} pictures; expected one"))
            else:
                label, trouble = self._label(infos) if labelled else (UNLABELLED, "")
                place = pictures[0].offset_data, pictures[0].size
                found.append(Member(shown(key), *place, label, trouble))
            keys.add(key)
        return found

    def _label(self, infos: list[tarfile.TarInfo]) -> tuple[int, str]:
        label = next((info for info in infos if _ending(info) == ".cls"), None)
        if label is None:
            return UNLABELLED, "has no label (no .cls member)"
        text = _read(self.path, label.offset_data, min(label.size, _LABEL_BYTES))
        try:
            number = int(text)
        except ValueError:
            number = -2
        if number < UNLABELLED:
            return UNLABELLED, f"label {text!r}; expected a class number"
        return number, ""


def _read(path: Path, start: int, size: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(size)


def _stray(info: tarfile.TarInfo) -> str:
    """Why a member is no part of a sample; "" if it is one."""
    parts = PurePosixPath(info.name).parts
    if info.name.startswith("/") or ".." in parts:
        return "its name leads out of the shard; it is not read"
    if not info.isfile():
        return "a link or device; it is not read"
    if _ending(info) not in (*ENDINGS, ".cls", ".json", ".txt"):
        return "no part of a sample"
    return ""


def _key(info: tarfile.TarInfo) -> str:
    folder, slash, file = info.name.rpartition("/")
    return folder + slash + file.split(".", 1)[0]


def _ending(info: tarfile.TarInfo) -> str:
    return PurePosixPath(info.name).suffix.lower()
