"""Tar shards: names and globs -> a fixed list, and reading one from a disk or a URL.

A shard is a local path or a URL of any file system that fsspec knows (s3://, gs://, hf://,
https://, ...). Never `pipe:` (it runs a shell command), a chain `a::b`, or a compressed tar (it
cannot be entered in the middle). A read that fails is tried again from the byte that was reached.
"""

from __future__ import annotations

import glob
import os
import re
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from vistok.core.errors import InputError
from vistok.core.regular_files import IrregularFileError, open_regular
from vistok.data.base import DataError, one_line
from vistok.data.kinds.patterns import has_wildcards, literal_part, matches

MOST_SHARDS = 2**23  # shard << 40 | offset is an int64: the key of a sample's draws
LARGEST = 2**29  # bytes of one read: what a damaged header asks for is never allocated
_REFUSED = {
    "pipe": "it runs a shell command",
    "reference": "it fills in templates",
    "dask": "it runs on other machines",
    "jupyter": "it talks to a running interpreter",
    "jlab": "it talks to a running interpreter",
    "git": "it runs another program",
}
_COMPRESSED = (".gz", ".tgz", ".bz2", ".tbz", ".tbz2", ".xz", ".txz", ".zst", ".zstd", ".lz4")
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_WAITS = (0.2, 1.0, 3.0)  # seconds before a failed read is tried again
_LASTING = {
    FileNotFoundError: "check the name",
    IrregularFileError: "check the name",
    IsADirectoryError: "check the name",
    PermissionError: "check your rights",
    ImportError: "install what it asks for",
}
_BUFFER = 2**20  # bytes read at a time from a local shard
HEADERS = 2**12  # the same where only headers are read


def protocol(name: str) -> str:
    """The file system of a shard's name; "" = a local path."""
    head, colon, _ = name.partition(":")
    # One letter before the colon is a drive.
    return head.lower() if colon and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]+", head) else ""


def check(pattern: str) -> None:
    """ValueError, one line, if a pattern names something that is never read."""
    kind = protocol(pattern)
    if kind in _REFUSED:
        raise InputError(
            f"'{pattern}': {kind}: is refused, {_REFUSED[kind]}; give a local path or the URL of a "
            f"file (s3://, gs://, hf://, https://)"
        )
    if "::" in pattern:
        raise InputError(f"'{pattern}': chained URLs (::) are refused; give the URL of a file")
    if kind and not pattern[len(kind) + 1 :].startswith("//"):
        raise InputError(f"'{pattern}': '{kind}:' is no URL; expected {kind}://... or a local path")
    path = _path(pattern)
    if path.lower().endswith(_COMPRESSED):
        raise InputError(
            f"'{pattern}': a compressed tar cannot be entered in the middle, so a run could not "
            f"resume where it stopped; unpack it to .tar (images are compressed already)"
        )
    if not path.endswith((".tar", "*", "?", "}", "]")):
        raise InputError(f"'{pattern}': expected a name or glob that ends in .tar")


def _path(name: str) -> str:
    """The path in the address of a web server, without its query; any other name as it is."""
    if protocol(name) not in ("http", "https"):
        return name
    try:
        return urlsplit(name).path
    except ValueError as error:
        raise InputError(
            f"'{name}': no address ({error}); expected https://host/folder/a.tar"
        ) from None


def find(patterns: str | tuple[str, ...]) -> list[str]:
    """The shards of some names with braces `{000..099}` or globs, in the order given.

    Matches of a glob are sorted bytewise. DataError if a pattern matches nothing.
    """
    found: dict[str, None] = {}
    for pattern in (patterns,) if isinstance(patterns, str) else patterns:
        for name in _unbraced(pattern):
            names = _named(name)
            for match in names:
                check(match)
                if not _path(match).endswith(".tar"):
                    raise DataError(f"data.webdataset {pattern}: '{match}' is no .tar; narrow it")
            found |= dict.fromkeys(names)
    if len(found) > MOST_SHARDS:
        raise DataError(f"data.webdataset: {len(found)} shards; expected at most {MOST_SHARDS}")
    return list(found)


def _unbraced(pattern: str) -> Iterator[str]:
    """The names of a pattern with braces; in the part of a local path that exists they stay."""
    if protocol(pattern):
        yield from braces(pattern)
        return
    place, rest = literal_part(os.path.expanduser(pattern))
    yield from (os.path.join(place, name) for name in braces(rest)) if rest else (place,)


def braces(pattern: str) -> Iterator[str]:
    """`a-{08..11}.tar` -> a-08.tar, a-09.tar, a-10.tar, a-11.tar; several braces multiply."""
    match = _BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    first, last = match.groups()
    if not 0 <= int(last) - int(first) < MOST_SHARDS:
        raise DataError(
            f"data.webdataset {pattern}: braces from {first} to {last}; expected a rising range of "
            f"at most {MOST_SHARDS}"
        )
    width = len(first) if first.startswith("0") else 0
    for number in range(int(first), int(last) + 1):
        yield from braces(f"{pattern[: match.start()]}{number:0{width}d}{pattern[match.end() :]}")


def _named(name: str) -> list[str]:
    kind = protocol(name)
    if kind in ("http", "https") or (kind and not has_wildcards(name)):
        return [name]  # a missing one is found when it is read
    names = _remote(name) if kind else matches(name)
    if not names:
        raise DataError(
            f"data.webdataset {name}: no such file; expected a tar shard, or a pattern like "
            f"folder/train-*.tar or folder/train-{{000..099}}.tar"
        )
    return sorted(names, key=os.fsencode)


def _remote(name: str) -> list[str]:
    """The addresses that match one with wildcards; what exists is taken by its name."""
    from fsspec.core import url_to_fs

    try:
        system, path = url_to_fs(name)
        if "*" not in path and system.exists(path):
            return [name]
        parts = path.split("/")
        number = _existing(system, parts)
        place = [glob.escape(part) for part in parts[:number]]
        found = system.glob("/".join([*place, *parts[number:]]))
        return [system.unstrip_protocol(match) for match in found]
    except Exception as error:  # every file system has errors of its own
        raise DataError(f"data.webdataset {name}: cannot be listed ({one_line(error)})") from None


def _existing(system: Any, parts: list[str]) -> int:
    """How many folders at the beginning of a path exist by name; asked only if it matters."""
    for number, part in enumerate(parts[:-1]):
        if has_wildcards(part):
            if "*" in part or not system.exists("/".join(parts[: number + 1])):
                return number
    return len(parts) - 1


class TarShard:
    """One shard, open for reading and seeking; use it as a context manager.

    It has what `tarfile` asks of a file. Opened by the process that reads: a fork would share the
    position, and fsspec's connections do not survive one.
    """

    def __init__(self, name: str, buffer: int = _BUFFER) -> None:
        self.name, self._buffer, self._at, self._file = name, buffer, 0, None
        self._size: int | None = None

    def __enter__(self) -> TarShard:
        self._again(lambda: None)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, count: int) -> bytes:
        """Up to `count` bytes; fewer only at the end. More than LARGEST is a ValueError."""
        if not 0 <= count <= LARGEST:
            raise InputError(f"{count} bytes; expected 0..{LARGEST}")
        data = self._again(lambda: self._whole(count))
        self._at += len(data)
        return data

    def seek(self, place: int) -> int:
        if place < 0:
            raise InputError(f"seek to {place}")
        self._again(lambda: self._file.seek(place))
        self._at = place
        return place

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _whole(self, count: int) -> bytes:
        data = self._file.read(count)
        if self._size is not None and len(data) < min(count, self._size - self._at):
            raise OSError(f"the connection ended after {len(data)} of {count} bytes")
        return data

    def _open(self) -> None:
        if protocol(self.name):
            import fsspec

            self._file = fsspec.open(self.name, "rb").open()
            size = getattr(self._file, "size", None)
            self._size = size if isinstance(size, int) else None
        else:
            self._file = open_regular(self.name, "rb", buffering=self._buffer)
        if self._at:
            self._file.seek(self._at)

    def _again(self, step: Any) -> Any:
        """`step()`, tried again on a fresh connection when it fails; then DataError."""
        for wait in (*_WAITS, None):
            try:
                if self._file is None:
                    self._open()
                return step()
            except Exception as error:  # every file system has errors of its own
                advice = next((v for k, v in _LASTING.items() if isinstance(error, k)), None)
                if wait is None or advice is not None:
                    raise DataError(
                        f"{self.name}: cannot be read at byte {self._at} ({one_line(error)}); "
                        f"{advice or 'tried several times: check the connection or the disk'}"
                    ) from None
            try:
                self.close()
            except Exception:  # a connection that failed may fail to close, too
                self._file = None
            time.sleep(wait)
        raise AssertionError("unreachable")
