"""Images in a tar shard, for a scan: found by the reader of training, by place, none extracted.

A sample is a run of members with one key (`tar_samples.groups`): one image and, if the shard has
labels, one `cls`. Everything else is listed in `troubles`.
"""

from __future__ import annotations

from vistok.core.errors import InputError
from vistok.data.base import BadSample, DataError, Dataset, Raw, Sample
from vistok.data.kinds.class_names import numbered, occurring
from vistok.data.kinds.folder import shown
from vistok.data.kinds.tar_samples import Group, groups
from vistok.data.kinds.tar_shards import HEADERS, TarShard
from vistok.data.kinds.webdataset import LABEL_BYTES, Tars, WebDatasetConfig


class TarImages(Dataset):
    """The whole samples of one shard, read as `config` says; its classes, unless the config gives
    them, are the labels that occur.

    `troubles`: (member, reason) of everything else. Raises DataError if the file is no tar.
    """

    def __init__(self, place: str, config: WebDatasetConfig) -> None:
        self.place, self.troubles = place, []
        self._tars = Tars([place], config, "train", False)
        found = self._groups()
        if config.classes is None:
            given = {"classes": self._labels(found) or None}
            self._tars = Tars([place], config.model_copy(update=given), "train", False)
        self.classes, self.size = self._tars.classes, self._tars.transform.hw
        self._offsets = [group.offset for group in found]

    def __len__(self) -> int:
        return len(self._offsets)

    def sample(self, index: int, epoch: int = 0, seed: int = 0) -> Sample:
        """Never asked for: a scan reads files as they are stored."""
        raise BadSample(self._tars.name(0), "a scan reads files, not samples")

    def raw(self, index: int) -> Raw:
        try:
            with TarShard(self.place, HEADERS) as file:
                group = next(groups(file, self._offsets[index], repeats=False), None)
        except DataError as error:
            raise BadSample(self._tars.name(0), str(error)) from None
        if group is None:
            raise BadSample(self._tars.name(0), "has changed since it was opened")
        return self._tars.raw(0, group)

    def _groups(self) -> list[Group]:
        """The samples' members, unread; all others are troubles."""
        with TarShard(self.place, HEADERS) as file:
            found = list(groups(file, contents=False, repeats=False))
        if found and not found[0].members:
            raise DataError(
                f"{self.place}: no tar ({found[0].problem}); expected an uncompressed tar shard"
            )
        good, keys = [], set()
        for group in found:
            if group.begins:
                keys.clear()
            reason = self._reason(group, keys)
            keys.add(group.key)
            if reason is None:
                good.append(group)
            else:
                self.troubles.append((shown(_name(group)), reason))
        return good

    def _reason(self, group: Group, keys: set[str]) -> str | None:
        """Why a group is no sample; None if it is one."""
        if group.problem is not None:
            return group.problem
        if group.key in keys:
            return "the key is there twice, the first one counts: members must lie side by side"
        try:
            self._tars.image_ending(group)
        except InputError as error:
            return str(error)
        return None

    def _labels(self, found: list[Group]) -> tuple[str, ...]:
        """Classes of the labels that occur: numbers if there are any, else names."""
        texts = set()
        with TarShard(self.place, HEADERS) as file:
            for group in found:
                if "cls" in group.members:
                    start, size = group.members["cls"]
                    file.seek(start)
                    data = file.read(min(size, LABEL_BYTES))
                    texts.add(data.decode("utf-8", "replace").strip())
        numbers = [int(text) for text in texts if text.isascii() and text.isdigit()]
        if not numbers:
            return occurring(text for text in texts if text)
        try:
            return numbered(max(numbers), self.place)
        except DataError as error:
            self.troubles.append((shown(self.place), str(error).removeprefix(f"{self.place}: ")))
            return ()


def _name(group: Group) -> str:
    """The member at which reading failed, else the key."""
    last = next(reversed(group.members), "") if group.problem is not None else ""
    return f"{group.key}.{last}" if last else group.key
