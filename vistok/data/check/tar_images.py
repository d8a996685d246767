"""Images in a tar shard, for a scan: found by the reader of training, by place, none extracted.

A sample is a run of members with one key (`tars.groups`): one image and, if the shard has labels,
one `cls` with the class number. Everything else is listed in `troubles`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vistok.core.regular_files import open_regular
from vistok.data.base import UNLABELED, BadSample, DataError, Dataset, Raw
from vistok.data.kinds.folder import shown
from vistok.data.kinds.tar_samples import Group, groups
from vistok.data.kinds.tar_shards import HEADERS, TarShard
from vistok.data.kinds.webdataset import IMAGE_ENDINGS

_LABEL_BYTES = 32


@dataclass(frozen=True)
class Member:
    """Place of one sample's image in the shard, and its label."""

    key: str
    start: int
    size: int
    label: int
    trouble: str  # with the label


class TarImages(Dataset):
    """The whole samples of one shard; `troubles`: (member, reason) of everything else.

    Raises DataError if the file is no tar.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.troubles = path, []
        self.members = self._index()
        top = max((m.label for m in self.members), default=UNLABELED)
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
        with TarShard(str(self.path), HEADERS) as file:
            found = list(groups(file, contents=False, repeats=False))
        if found and not found[0].members:
            raise DataError(
                f"{self.path}: no tar ({found[0].problem}); expected an uncompressed tar shard"
            )
        members, keys = [], set()
        labeled = any("cls" in group.members for group in found)
        for group in found:
            reason = self._reason(group, keys)
            keys.add(group.key)
            if reason is not None:
                self.troubles.append((shown(_name(group)), reason))
                continue
            (place,) = _images(group)
            label, trouble = self._label(group) if labeled else (UNLABELED, "")
            members.append(Member(shown(group.key), *place, label, trouble))
        return members

    @staticmethod
    def _reason(group: Group, keys: set[str]) -> str | None:
        """Why a group is no sample; None if it is one."""
        if group.problem is not None:
            return group.problem
        if group.key in keys:
            return "the key is there twice; the first one counts"
        count = len(_images(group))
        return None if count == 1 else f"has {count} images; expected one"

    def _label(self, group: Group) -> tuple[int, str]:
        if "cls" not in group.members:
            return UNLABELED, "has no label (no .cls member)"
        start, size = group.members["cls"]
        text = _read(self.path, start, min(size, _LABEL_BYTES))
        try:
            number = int(text)
        except ValueError:
            number = -2
        if number < UNLABELED:
            return UNLABELED, f"label {text!r}; expected a class number"
        return number, ""


def _images(group: Group) -> list[tuple[int, int]]:
    """(place, size) of the group's images."""
    return [place for ending, place in group.members.items() if ending in IMAGE_ENDINGS]


def _name(group: Group) -> str:
    """The member at which reading failed, else the key."""
    last = next(reversed(group.members), "") if group.problem is not None else ""
    return f"{group.key}.{last}" if last else group.key


def _read(path: Path, start: int, size: int) -> bytes:
    with open_regular(path, "rb") as file:
        file.seek(start)
        return file.read(size)
