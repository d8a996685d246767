"""Work on many files: a progress bar, one line for each of a few, what failed, and a summary."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping
from typing import Any

import click

from vistok.config.errors import InputError
from vistok.core.text import printable
from vistok.core.verbosity import quiet

FEW = 20  # files up to which each gets a line of its own


class Work:
    """Work of one command on `count` files; use it as a context manager.

    A file that fails is named on the error output and counted, and the others go on. At the end
    there is an error that counts them, so that the exit code is 1. The only file of a command
    fails the command at once.
    """

    def __init__(self, what: str, count: int, unit: str) -> None:
        self.what, self.count, self.unit = what, count, unit
        self.failed: list[str] = []
        self.done = 0
        self._bar: Any = None
        self._start = time.monotonic()

    def __enter__(self) -> Work:
        from tqdm import tqdm

        self._start = time.monotonic()
        self._bar = tqdm(
            total=self.count,
            desc=self.what,
            unit=f" {self.unit}s",
            # Of a few files only people who watch see a bar; many leave one in a log too.
            disable=quiet() or (self.count <= FEW and not sys.stderr.isatty()),
            leave=self.count > FEW,
            mininterval=0.2 if sys.stderr.isatty() else 30,
            smoothing=0.05,
            dynamic_ncols=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    @property
    def seconds(self) -> float:
        """Seconds since the work began."""
        return max(time.monotonic() - self._start, 1e-9)

    def succeed(self, line: str) -> None:
        """Count a file that is done; of a few files, print its line."""
        self.done += 1
        self._bar.update()
        if self.count <= FEW and not quiet():
            with self._aside():
                click.echo(printable(line, keep="\n"))

    def fail(self, path: str, error: Exception) -> None:
        """Name and count a file that failed; raises the error itself if there is no other file."""
        if self.count == 1:
            raise error
        self._bar.update()
        text = printable(" ".join(str(error).split()))
        if isinstance(error, OSError) and error.strerror:
            text = f"{printable(path)}: {error.strerror}"
        self.failed.append(path)
        self.warn(text if printable(path) in text else f"{printable(path)}: {text}")

    def warn(self, line: str) -> None:
        """Print a line on the error output, above the bar."""
        with self._aside():
            click.echo(printable(line), err=True)

    def detail(self, text: str) -> None:
        """Show a few words behind the bar."""
        self._bar.set_postfix_str(text)

    def _aside(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext() if self._bar.disable else self._bar.external_write_mode()

    def finish(self) -> None:
        """Raise InputError if a file failed."""
        if not self.failed:
            return
        names = ", ".join(self.failed[:3])
        more = f" and {len(self.failed) - 3} more, named above" if len(self.failed) > 3 else ""
        raise InputError(
            f"{len(self.failed):,} of {self.count:,} files failed: {names}{more}; "
            f"the other {self.done:,} are done"
        )


def left_out_text(left_out: Mapping[str, int]) -> str:
    """Line on files of other kinds in the folders that were named; "" if there are none."""
    from vistok.data.kinds.walk import endings_text

    if not left_out:
        return ""
    return f"left out: {sum(left_out.values()):,} other files ({endings_text(left_out)})"
