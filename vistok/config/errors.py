"""Mistakes of a user end a command in one line, without a traceback."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import click


def one_line_errors(function: Callable) -> Callable:
    """A command whose expected errors are one line and exit code 1.

    With VISTOK_DEBUG=1 they show where they came from.
    """

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except click.ClickException:
            raise
        except (ValueError, OSError, FloatingPointError, _bad_sample()) as error:
            if os.environ.get("VISTOK_DEBUG"):
                raise
            click.echo(f"error: {error}", err=True)
            sys.exit(1)

    return guarded


def _bad_sample() -> type[Exception]:
    from vistok.data.base import BadSample  # torch: only when something went wrong

    return BadSample
