"""Small files of text, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write beside the place, then rename into it: a full disk leaves the old file as it was.

    Raises OSError that names the file and says what to do.
    """
    draft = path.with_name(f".writing_{path.name}.{os.getpid()}")
    try:
        draft.write_text(text, "utf-8")
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise unwritten(path, error) from None


def unwritten(path: str | Path, error: OSError) -> OSError:
    """The error of a file that a disk refused, in one line."""
    reason = error.strerror or error
    return OSError(
        f"{path}: cannot be written ({reason}); make space or set another out, then start the same "
        "command again"
    )
