"""Text and JSON of somebody else, read within bounds: a regular file, so large, nested so deep.

A file of a downloaded run or model may be a pipe that never ends, gigabytes of nothing, or lists
within lists until the stack is full. Each of these is one line here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vistok.core.errors import InputError

DEEPEST = 64  # containers within containers; what this package writes stays below a third of it
LARGEST = 2**24  # bytes of a file, unless the caller expects more


def read_text(path: str | Path, most: int = LARGEST, encoding: str = "utf-8-sig") -> str:
    """The UTF-8 text of a regular file of at most `most` bytes, without its byte order mark.

    Args:
        encoding: "utf-8" keeps the mark.
    Raises InputError, one line, for anything else; a missing file is the system's
    FileNotFoundError.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: not a regular file; expected text")
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise InputError(
            f"{path}: {path.stat().st_size:,} bytes; expected at most {most:,}: it is damaged or "
            "another file"
        )
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not text in UTF-8 ({error}); it is damaged or another file"
        ) from None


def read_json(path: str | Path, most: int = LARGEST, **numbers: Callable[[str], Any]) -> Any:
    """The content of a JSON file, bounded in size (`most` bytes) and depth.

    Args:
        numbers: as in `parse_json`.
    Raises InputError, one line with the file's name, for anything else; a missing file is the
    system's FileNotFoundError.
    """
    return parse_json(read_text(path, most), path, **numbers)


def parse_json(text: str | bytes, source: object, **numbers: Callable[[str], Any]) -> Any:
    """The content of a JSON text, at most DEEPEST containers within each other.

    Args:
        source: the file's name, which begins the error.
        numbers: parse_constant, parse_float and parse_int, as in `json`: the value of a number's
            text. The first is given NaN, Infinity and -Infinity, which are no JSON.
    Raises InputError, one line.
    """
    try:
        data = json.loads(text, **numbers)
    except RecursionError:
        raise InputError(_too_deep(source)) from None
    except ValueError as error:
        raise InputError(f"{source}: not JSON ({error})") from None
    check_depth(data, source)
    return data


def check_depth(data: Any, source: object) -> None:
    """InputError if dicts and lists lie more than DEEPEST deep within each other."""
    level = [data]
    for _ in range(DEEPEST + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise InputError(_too_deep(source))


def _too_deep(source: object) -> str:
    return f"{source}: nested more than {DEEPEST} deep; it is damaged or another file"
