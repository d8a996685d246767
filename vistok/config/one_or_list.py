"""Config values that are a number or a list of numbers, with one error for either."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag


def _form(value: Any) -> str:
    return "list" if isinstance(value, list | tuple) else "number"


def one_or_list(kind: Any) -> Any:
    """The type of a `kind`, or of a tuple of them that is not empty.

    A value's form tells the two apart, so that an error names what is wrong with the given one.
    """
    several = Annotated[tuple[kind, ...], Field(min_length=1), Tag("list")]
    return Annotated[Annotated[kind, Tag("number")] | several, Discriminator(_form)]
