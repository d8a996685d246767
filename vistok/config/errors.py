"""Errors that a user can mend, and how a command shows them: in one line, without a traceback.

The line names the thing, its value, what was expected and what to do. Everything that is not a
`UserError` (or a file that the system refuses) is a bug of vistok and is called one, unless it
arose in a part of the user's own: then the line names its file and line.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import click

from vistok.config import own_code
from vistok.core.errors import InputError, UserError
from vistok.core.text import printable

__all__ = [
    "BUG",
    "ConfigError",
    "InputError",
    "NonFiniteError",
    "UserError",
    "explain",
    "one_line_errors",
]

BUG = 70  # exit code of an internal error; 1 is a user's mistake, 2 a wrong use of the command


class ConfigError(UserError, ValueError):
    """A config that cannot be used."""


class NonFiniteError(UserError, FloatingPointError):
    """Numbers that must be finite and are not: a loss, a gradient, weights."""


def one_line_errors(function: Callable) -> Callable:
    """A command whose errors are one line: exit code 1 for what the user can mend, BUG otherwise.

    With VISTOK_DEBUG=1 every error is raised with its traceback.
    """

    @functools.wraps(function)
    def command(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception as error:
            if os.environ.get("VISTOK_DEBUG"):
                raise
            line, code = explain(error)
            click.echo(line, err=True)
            sys.exit(code)

    return command


def explain(error: Exception) -> tuple[str, int]:
    """(the one line that says what went wrong, exit code); what does not print is escaped."""
    text = printable(" ".join(str(error).split()))
    if isinstance(error, UserError):
        return f"error: {text}", 1
    if isinstance(error, OSError) and error.strerror:
        where = f"{printable(error.filename)}: " if error.filename is not None else ""
        return f"error: {where}{error.strerror}", 1
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which this package does not import
        return f"error: out of memory ({text[:160]}); lower the batch size", 1
    said = f"{type(error).__name__}: {text}"
    if (line := own_code.place(error)) is not None:
        return f"error: {printable(line)}: {said}; VISTOK_DEBUG=1 shows the traceback", 1
    own = own_code.names()
    whose = f", or of {' or '.join(own)} (`vistok test-part {own[0]}` tells)" if own else ""
    return (
        f"internal error: {said}; this is a bug of vistok{whose}: set VISTOK_DEBUG=1 for the "
        "traceback",
        BUG,
    )
