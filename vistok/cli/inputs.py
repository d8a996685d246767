"""Input files of commands: files, folders (with all their sub-folders) and patterns (`a/**/*.jpg`).

A file that is named is always taken; of a folder, those with a known ending. Files that are left
out are counted by their endings.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from vistok.config.errors import InputError, UserError

Result = TypeVar("Result")


@dataclass(frozen=True)
class Source:
    """One input file."""

    path: str
    below: str  # its path below the folder (or the pattern's fixed part) that was named; beside
    # other words the folder's own name is part of it, so that a/1.jpg and b/1.jpg stay apart


@dataclass(frozen=True)
class Sources:
    """The input files of one command."""

    files: tuple[Source, ...]
    left_out: dict[str, int]  # files of folders, by ending
    listed: bool  # True: some come from a folder or pattern, so that nobody typed their names


def find_sources(words: Sequence[str], endings: Sequence[str], what: str) -> Sources:
    """The files that words name, each once; those of a folder sorted by their paths.

    Args:
        endings: of the files that are taken from folders. what: one of them, for messages.
    Raises InputError for a word that names nothing, and for a file that is named twice.
    """
    from vistok.data.kinds.patterns import has_wildcards, literal_part, matches
    from vistok.data.kinds.walk import ending_of, walk

    files: list[Source] = []
    left_out: Counter[str] = Counter()
    listed = False
    for word in words:
        root = os.path.expanduser(word)
        if os.path.isdir(root):
            listed, found = True, []
            own = os.path.basename(os.path.abspath(root)) if len(words) > 1 else ""
            for below in walk(root):
                if ending_of(below) in endings:
                    found.append(Source(os.path.join(root, below), os.path.join(own, below)))
                else:
                    left_out[ending_of(below)] += 1
            if not found:
                raise InputError(
                    f"{word}: no {what} in this folder; expected files ending in "
                    f"{' '.join(endings)}"
                )
            files += sorted(found, key=lambda one: os.fsencode(one.below))
        elif not os.path.lexists(root) and has_wildcards(root):
            listed, place = True, literal_part(root)[0]
            found = [Source(path, os.path.relpath(path, place or ".")) for path in matches(root)]
            if not found:
                raise InputError(f"{word}: no file fits this pattern")
            files += found
        else:
            files.append(Source(word, os.path.basename(word)))
    return Sources(tuple(files), dict(left_out), listed)


@dataclass(frozen=True)
class Read:
    """An input file that was read, or why it could not be."""

    number: int
    source: Source
    value: Any = None
    error: Exception | None = None


def read_ahead(
    files: Sequence[Source], reader: Callable[[str], Result], workers: int, ahead: int
) -> Iterator[Read]:
    """Each file in its order, read by threads; `ahead` of them wait in memory at most.

    Errors that a user can mend are results; others are raised.
    """

    def one(number: int, source: Source) -> Read:
        try:
            return Read(number, source, reader(source.path))
        except (UserError, OSError) as error:
            return Read(number, source, error=error)

    if workers == 0:
        yield from (one(number, source) for number, source in enumerate(files))
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque = deque()
        try:
            for number, source in enumerate(files):
                waiting.append(pool.submit(one, number, source))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for job in waiting:
                job.cancel()


def in_batches(items: Iterable[Result], size: int) -> Iterator[list[Result]]:
    """Lists of `size` items; the last may be shorter."""
    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch
