"""The group of commands: a table of names, of which only the command that is called is imported."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import click

from vistok.cli.verbosity import add_verbosity

Table = Mapping[str, Sequence[tuple[str, str, str]]]


class Commands(click.Group):
    """A group whose commands are imported when they are called.

    It takes `plugins=` out of the words of every command.
    """

    def __init__(self, *args: Any, table: Table, **kwargs: Any) -> None:
        """Make the group of a table: heading -> (name, "module:function", sentence), in order."""
        super().__init__(*args, **kwargs)
        add_verbosity(self)
        self.table = table
        self.places = {name: place for rows in table.values() for name, place, _ in rows}
        self.sentences = {name: told for rows in table.values() for name, _, told in rows}

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        if any(word.startswith("plugins=") for word in args):
            from vistok.config import take_plugins
            from vistok.config.errors import one_line_errors

            args = one_line_errors(take_plugins)(args)
        return super().parse_args(context, args)

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.places)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in self.places:
            return None
        module, _, function = self.places[name].partition(":")
        return add_verbosity(getattr(importlib.import_module(module), function))

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command of the first word; UsageError with the nearest name for a word that is none.

        The command's own name may differ from that of the table, which is what is shown.
        """
        if args[0] not in self.places and not args[0].startswith("-"):
            from vistok.config.names import close

            like = close(args[0], self.places, cutoff=0.6)
            hint = f"did you mean '{like}'?" if like else "`vistok --help` lists the commands"
            context.fail(f"no command '{args[0]}'; {hint}")
        return super().resolve_command(context, args)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        widest = max(map(len, self.places))  # one column for all headings
        for heading, rows in self.table.items():
            with formatter.section(heading):
                formatter.write_dl([(f"{name:{widest}}", told) for name, _, told in rows])
