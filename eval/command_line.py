"""Commands whose arguments are `key=value`, with a --help that prints every key of their config."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click
from pydantic import BaseModel

from vistok.cli.verbosity import add_verbosity
from vistok.config.overrides import text_of


def command(arguments: str, config: str) -> Callable[[Callable], click.Command]:
    """A click command that hands its arguments to the function as they are.

    Args:
        arguments: how they are shown in the usage line.
        config: "module:Class" of its config, imported when --help is asked for.
    """

    def make(function: Callable[[Sequence[str]], None]) -> click.Command:
        class KeyCommand(click.Command):
            def format_options(self, context: click.Context, out: click.HelpFormatter) -> None:
                super().format_options(context, out)
                module, _, name = config.partition(":")
                with out.section("Keys"):
                    for line in describe(getattr(importlib.import_module(module), name)):
                        out.write(f"  {line}\n")

        made = click.command(
            cls=KeyCommand, context_settings={"help_option_names": ["-h", "--help"]}
        )(function)
        made.params.insert(0, click.Argument(["arguments"], nargs=-1, metavar=arguments))
        return add_verbosity(made)

    return make


def describe(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Lines `key: type = default` with the docstring of each key below, groups inside as well."""
    for name, field in model.model_fields.items():
        key, default = f"{prefix}{name}", field.get_default(call_default_factory=True)
        inner = _model(field.annotation)
        text = " ".join((field.description or "").split())
        if inner is not None and inner.model_fields:
            yield f"{key}.*: {text or inner.__doc__}"
            yield from describe(inner, f"{key}.")
            continue
        if inner is not None:
            yield f"{key}: {text} It has no keys."
            continue
        given = "(required)" if field.is_required() else f"= {text_of(default)}"
        yield f"{key}: {_type(field.annotation)} {given}"
        if text:
            yield f"    {text}"


def _model(annotation: Any) -> type[BaseModel] | None:
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation if is_model else None


def _type(annotation: Any) -> str:
    """A type as a user reads it: `tuple[str, ...] | None` -> `list of str or null`."""
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    if not isinstance(annotation, type) or "[" in str(annotation):
        text = str(annotation)
    text = re.sub(r"typing\.|pydantic\.[\w.]*", "", text)
    text = re.sub(r"tuple\[(\w+), \.\.\.\]", r"list of \1", text)
    text = re.sub(r"Literal\[(.*?)\]", lambda m: m[1].replace("'", "").replace(", ", "|"), text)
    text = re.sub(r"dict\[str, .*\]", "mapping", text)
    return text.replace(" | None", " or null")
