"""Samples in a tar shard in WebDataset's layout: consecutive members with one key.

`000123.jpg` and `000123.cls` have the key `000123` and the endings `jpg` and `cls`: the name is cut
at the first dot behind the last slash. A shard can be entered at the first byte of any sample.
Members are read into memory or passed over; none is ever written to disk, whatever its name says.
Folders and hidden files (`._x.jpg`, which macOS adds) are passed over.

`tarfile` reads the headers. It takes any damaged header for the end of the archive, so the end is
checked here: a block of zeros must follow, or the shard counts as cut off. Behind the end mark
zeros are passed over; what follows is read as another archive (`cat a.tar b.tar > ab.tar`), whose
keys may be those of the first.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field

from vistok.data.base import DataError, one_line
from vistok.data.kinds.tar_shards import HEADERS, LARGEST, TarShard

_BLOCK = 512
_ZEROS = 2**16  # bytes that are read at a time behind an end mark


@dataclass
class Group:
    """One sample of a shard, or the damage that was found in its place.

    offset: byte of its first member; after: byte of the next sample, None if nothing can follow.
    members: (place, size) of the data by ending; contents: the bytes, if they were read.
    problem: why it cannot be used. begins: True for the first sample of an archive behind another.
    """

    key: str
    offset: int
    after: int | None = None
    members: dict[str, tuple[int, int]] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    problem: str | None = None
    begins: bool = False


def groups(
    source: TarShard, offset: int = 0, contents: bool = True, repeats: bool = True
) -> Iterator[Group]:
    """The samples from byte `offset` on; `contents=False` reads headers alone.

    If the shard is cut off, a last group says so: what was half, or nothing at all. A key that the
    archive had before is a problem too, if `repeats` are asked for: entered in the middle, the
    headers before `offset` are read first.
    """
    keys: set[str] = set()
    if offset and repeats:
        with TarShard(source.name, HEADERS) as before:
            for group in groups(before, 0, contents=False):
                if group.begins:
                    keys.clear()
                if group.offset >= offset:
                    break
                keys.add(group.key)
    for group in _runs(source, offset, contents):
        if group.begins:
            keys.clear()
        if repeats and group.key in keys and group.problem is None:
            group.problem = "repeats a key of the same shard"
        keys.add(group.key)
        yield group


def _runs(source: TarShard, offset: int, contents: bool) -> Iterator[Group]:
    """Consecutive members with one key."""
    group: Group | None = None
    end, fresh = offset, False
    try:
        for member, end, begins in _members(source, offset):  # noqa: B007
            fresh = fresh or begins  # also if its first member is passed over
            folder, slash, name = member.name.rpartition("/")
            stem, _, ending = name.partition(".")
            if member.isdir() or not stem:
                continue
            key, ending = folder + slash + stem, ending.lower()
            if group is None or fresh or key != group.key or ending in group.members:
                if group is not None:
                    group.after = member.offset
                    yield group
                group, fresh = Group(key, member.offset, begins=fresh), False
            group.members[ending] = (member.offset_data, member.size)
            group.problem = group.problem or _problem(member)
            if contents and group.problem is None:
                source.seek(member.offset_data)
                group.contents[ending] = source.read(member.size)
    except _Cut as cut:
        if group is not None and not cut.half:
            group.after = end
            yield group
            group = None
        group = group or Group("(end)", end)
        group.problem, group.after = f"the shard is cut off: {cut}", None
        yield group
        return
    if group is not None:
        group.after = end
        yield group


class _Cut(Exception):
    """The shard ends, or cannot be followed, before its end mark; `half`: inside a member."""

    def __init__(self, reason: str, half: bool = False) -> None:
        super().__init__(reason)
        self.half = half


def _members(source: TarShard, offset: int) -> Iterator[tuple[tarfile.TarInfo, int, bool]]:
    """(member, byte of the next header, True if it begins an archive behind another) from byte
    `offset` on; _Cut if no end mark follows."""
    start: int | None = offset
    while start is not None:
        end, begins = start, start != offset
        source.seek(start)
        try:
            tar = tarfile.TarFile(fileobj=source, encoding="utf-8", errors="surrogateescape")
            while (member := tar.next()) is not None:
                tar.members = []  # it would keep them all
                if member.size < 0 or member.offset < end:  # it would loop forever
                    raise _Cut(f"a damaged header at byte {end}")
                end = tar.offset
                yield member, end, begins
                begins = False
                source.seek(end - 1)
                if not source.read(1):
                    raise _Cut(f"it ends inside '{one_line(member.name)}'", half=True)
        except (_Cut, DataError):
            raise
        except Exception as error:  # damaged headers make tarfile fail in too many ways to list
            raise _Cut(f"no readable header at byte {end} ({one_line(error)})") from None
        source.seek(end)
        mark = source.read(_BLOCK)
        if len(mark) < _BLOCK or mark.strip(b"\0"):
            raise _Cut(f"a damaged header at byte {end}" if mark else f"no end mark at byte {end}")
        start = _behind_zeros(source, end + _BLOCK)


def _behind_zeros(source: TarShard, start: int) -> int | None:
    """The first block from byte `start` on that holds anything; None if only zeros follow."""
    while data := source.read(_ZEROS):
        rest = data.lstrip(b"\0")
        if rest:
            return start + (len(data) - len(rest)) // _BLOCK * _BLOCK
        start += len(data)
    return None


def _problem(member: tarfile.TarInfo) -> str | None:
    shown = one_line(member.name)
    if not member.isreg() or member.sparse is not None:
        return f"'{shown}' is a link, a device or sparse; expected plain files"
    if member.name.startswith("/") or ".." in member.name.split("/"):
        return f"the name '{shown}' leads out of the archive"
    if member.size > LARGEST:
        return f"'{shown}' has {member.size} bytes; expected at most {LARGEST}"
    return None
