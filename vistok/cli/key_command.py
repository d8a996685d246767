"""Commands whose words are `key=value`, with a --help that prints every key of their config."""

from __future__ import annotations

import importlib
import textwrap
from collections.abc import Callable, Iterator, Sequence
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import click

from vistok.cli.verbosity import add_verbosity

if TYPE_CHECKING:
    from pydantic import BaseModel

_TYPES = {str: "text", int: "int", float: "float", bool: "true|false", NoneType: "null"}


def key_command(
    arguments: str, config: str, options: Sequence[click.Option] = ()
) -> Callable[[Callable], click.Command]:
    """A click command that hands its words to the function as they are.

    Args:
        arguments: how they are shown in the usage line.
        config: "module:Class" of its config, imported when --help is asked for.
        options: options of click, which the function gets by name.
    """

    def make(function: Callable[..., None]) -> click.Command:
        class KeyCommand(click.Command):
            def format_options(self, context: click.Context, out: click.HelpFormatter) -> None:
                module, _, name = config.partition(":")
                with out.section("Keys"):
                    for line in described(getattr(importlib.import_module(module), name)):
                        out.write(f"{line}\n")
                super().format_options(context, out)

        made = click.command(
            cls=KeyCommand, context_settings={"help_option_names": ["-h", "--help"]}
        )(function)
        made.params = [click.Argument(["arguments"], nargs=-1, metavar=arguments), *options]
        return add_verbosity(made)

    return make


def described(model: type[BaseModel], width: int = 78) -> Iterator[str]:
    """Lines of --help: `key: type = default`, and its docstring below it, wrapped."""
    for key, text in _keys(model):
        if not key:
            yield ""
        yield from textwrap.wrap(key, width, initial_indent="  ", subsequent_indent="      ")
        yield from textwrap.wrap(text, width, initial_indent="      ", subsequent_indent="      ")


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(key with type and default, docstring) of each key; groups inside as well, apart."""
    from vistok.config.overrides import text_of

    for name, field in model.model_fields.items():
        key, default = f"{prefix}{name}", field.get_default(call_default_factory=True)
        inner = _model(field.annotation)
        text = " ".join((field.description or "").split())
        if inner is not None and inner.model_fields:
            yield "", ""
            yield f"{key}.*: {text or inner.__doc__ or ''}", ""
            yield from _keys(inner, f"{key}.")
        elif inner is not None:
            yield "", ""
            yield f"{key}: {text} It has no keys.", ""
        else:
            given = "(required)" if field.is_required() else f"= {text_of(default)}"
            yield f"{key}: {_type(field.annotation)} {given}", text


def _model(annotation: Any) -> type[BaseModel] | None:
    from pydantic import BaseModel

    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation if is_model else None


def _type(annotation: Any) -> str:
    """A type as a user reads it: `tuple[str, ...] | None` -> `list of text or null`."""
    from vistok.config.overrides import text_of

    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inside[0])
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(_type, inside)))
    if origin is Literal:
        return "|".join(map(text_of, inside))
    if origin is tuple and inside[-1:] == (Ellipsis,):
        return f"list of {_type(inside[0])}"
    if origin is tuple:
        return f"[{', '.join(map(_type, inside))}]"
    if origin is dict or _model(annotation):
        return "mapping"
    return _TYPES.get(annotation, "value")
