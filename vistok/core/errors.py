"""Errors that a user can mend; commands show them as one line.

The line names the thing, its value, what was expected and what to do. Every other exception that
reaches a command is a bug of vistok.
"""

from __future__ import annotations


class UserError(Exception):
    """A mistake that the user can mend; the message is one line."""


class InputError(UserError, ValueError):
    """A value that a function cannot take: a wrong shape, length, name or setting."""


class MissingFileError(UserError, FileNotFoundError):
    """A file that is needed and not there."""
