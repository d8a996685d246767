"""The page of commands: what `--help` of each prints, under the headings of the overview."""

from __future__ import annotations

import click
from click.testing import CliRunner

from vistok.cli import COMMANDS, main

# Words behind a command that have a help of their own, where click does not know them as a group.
_WORDS = {"eval": ("verify", "leaderboard", "speed", "reference")}


def commands() -> str:
    """All commands, in the order of the overview."""
    lines = []
    for heading, rows in COMMANDS.items():
        lines += [f"## {heading}", ""]
        for name, _, sentence in rows:
            lines += [f"### vistok {name}", "", f"{sentence}.", "", _help(name)]
            for word in _subcommands(name):
                lines += [f"#### vistok {name} {word}", "", _help(name, word)]
    return "\n".join(lines)


def _subcommands(name: str) -> list[str]:
    command = main.get_command(click.Context(main), name)
    inner = list(command.commands) if isinstance(command, click.Group) else []
    return inner or list(_WORDS.get(name, ()))


def _help(*words: str) -> str:
    """The help of a command in a block; what is printed for errors ends the build."""
    done = CliRunner().invoke(main, [*words, "--help"], terminal_width=84, prog_name="vistok")
    if done.exit_code:
        raise click.ClickException(f"vistok {' '.join(words)} --help: {done.output.strip()}")
    return f"```text\n{done.output.rstrip()}\n```\n"
