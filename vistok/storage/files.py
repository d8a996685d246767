"""Files written whole or not at all: beside their place, flushed to the disk, renamed into it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vistok.config.errors import UserError

DRAFT = ".writing_"  # how the names of unfinished files begin; a kill may leave one behind
_LONGEST = 48  # characters of a name that its draft repeats: names end at 255 bytes


class UnwrittenError(UserError, OSError):
    """A file that the disk refused."""


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A draft to write, renamed to `path` when the block ends without an error.

    A kill or a full disk leaves the old file as it was; readers see the old one or the new one.
    A link that lies at `path` is replaced, never followed, and so for the draft, whose name nobody
    can foresee.
    """
    path = Path(path)
    draft = path.with_name(f"{DRAFT}{path.name[:_LONGEST]}.{os.getpid()}.{secrets.token_hex(4)}")
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield draft
        sync(draft)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Replace a file's bytes; UnwrittenError names the file and says what to do."""
    try:
        with replacing(path) as draft:
            draft.write_bytes(data)
    except OSError as error:
        raise unwritten(path, error) from None


def write_text(path: str | Path, text: str) -> None:
    """Replace a file's text (UTF-8); errors as in `write_bytes`."""
    write_bytes(path, text.encode())


def sync(path: str | Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def unwritten(path: str | Path, error: OSError) -> UnwrittenError:
    """The error of a file that a disk refused, in one line."""
    reason = error.strerror or error
    return UnwrittenError(
        f"{path}: cannot be written ({reason}); make space or set another out, then start the same "
        "command again"
    )
