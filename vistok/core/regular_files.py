"""Opening of files that somebody else named: pipes, sockets and devices are refused.

Reading a named pipe waits for a writer that never comes, and some devices have no end. Names tell
nothing: a pipe may be called photo.png, and a link may lead to one.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Any

from vistok.core.errors import UserError

_KINDS = (
    (stat.S_ISFIFO, "a named pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class IrregularFileError(UserError, OSError):
    """A path that leads to a pipe, a socket or a device, where a file was expected."""

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


def open_regular(path: str | os.PathLike[str], mode: str = "r", **options: Any) -> Any:
    """`open` for reading; IrregularFileError, at once, if the path leads to no regular file."""
    check_regular(path)  # opening a device may already move it
    return open(path, mode, opener=_open, **options)


def check_regular(path: str | os.PathLike[str]) -> None:
    """IrregularFileError if a path leads to a pipe, a socket or a device.

    For libraries that open by name. A path that is missing, or a folder, is left to them.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    _check(path, mode)


def _open(path: str, flags: int) -> int:
    """`open`'s opener. A pipe that came after the check is opened without waiting, and refused."""
    handle = os.open(path, flags | os.O_NONBLOCK)
    try:
        _check(path, os.fstat(handle).st_mode)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _check(path: str | os.PathLike[str], mode: int) -> None:
    for is_kind, name in _KINDS:
        if is_kind(mode):
            text = f"is {name}; expected a regular file"
            raise IrregularFileError(errno.EINVAL, text, os.fspath(path))
