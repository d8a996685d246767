"""`--verbosity`, `-q` and `-v`: options of the group and of every command."""

from __future__ import annotations

from typing import Any

import click

from vistok.core.verbosity import LEVELS, VARIABLE, choose


def _choose(context: click.Context, parameter: click.Parameter, level: str | None) -> None:
    if level is not None and not context.resilient_parsing:
        choose(level)


def _flag(name: str, level: str) -> click.Option:
    def given(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
        _choose(context, parameter, level if wanted else None)

    return click.Option(
        [name, level], is_flag=True, expose_value=False, hidden=True, callback=given
    )


def add_verbosity(command: Any) -> Any:
    """The same command with the options, behind its own; a group gives them to its commands."""
    if any(parameter.name == "verbosity" for parameter in command.params):
        return command
    command.params += [
        click.Option(
            ["--verbosity"],
            type=click.Choice(LEVELS),
            envvar=VARIABLE,
            expose_value=False,
            callback=_choose,
            metavar="LEVEL",
            help="quiet (-q), normal or debug (-v).",
        ),
        _flag("-q", "quiet"),
        _flag("-v", "debug"),
    ]
    for inner in getattr(command, "commands", {}).values():
        add_verbosity(inner)
    return command
