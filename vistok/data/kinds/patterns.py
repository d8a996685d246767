"""Names of local files with wildcards (`*`, `?`, `[...]`, `**`) -> the files that match.

What exists is taken by its name: a folder called `set [v1]` is that folder, although `[v1]` is a
wildcard too. Only a part of a path that does not exist as it stands is read as a pattern.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator


def matches(pattern: str) -> list[str]:
    """The files that a path or pattern names, sorted bytewise, each once; [] if there are none.

    Dead links and pipes are among them: reading one says so.
    """
    pattern = os.path.expanduser(pattern)
    place, rest = literal_part(pattern)
    found = _expand(place, rest.split("/") if rest else [])
    return sorted({path for path in found if not os.path.isdir(path)}, key=os.fsencode)


def literal_part(pattern: str) -> tuple[str, str]:
    """(the longest beginning of a pattern, cut at slashes, that exists by name; the rest)."""
    place = "/" if pattern.startswith("/") else ""
    parts = [part for part in pattern.split("/") if part]
    for number, part in enumerate(parts):
        deeper = os.path.join(place, part)
        if not os.path.lexists(deeper):
            return place, "/".join(parts[number:])
        place = deeper
    return place, ""


def has_wildcards(text: str) -> bool:
    """True if a name could be a pattern."""
    return glob.has_magic(text)


def _expand(place: str, parts: list[str]) -> Iterator[str]:
    """Paths below `place` that match the parts of a pattern, one part for each folder level."""
    if not parts:
        yield place
        return
    part, *rest = parts
    literal = os.path.join(place, part)
    if os.path.lexists(literal):
        yield from _expand(literal, rest)
    elif glob.has_magic(part):
        deep = part == "**" and bool(rest)
        if deep:  # zero folders, too, which `glob` leaves out of a relative pattern
            yield from _expand(place, rest)
        inside = os.path.join(glob.escape(place), f"{part}/" if deep else part)
        for path in glob.iglob(inside, recursive=True):
            yield from _expand(path.rstrip("/") or "/", rest)
