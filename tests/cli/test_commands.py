"""The table of commands: all of them are there, and the overview needs none of them."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from vistok.cli import COMMANDS, main

NAMES = [name for rows in COMMANDS.values() for name, _, _ in rows]


@pytest.mark.parametrize("name", NAMES)
def test_every_command_opens_and_fits_the_overview(name):
    command = main.get_command(click.Context(main), name)
    assert isinstance(command, click.Command)
    overview = CliRunner().invoke(main, ["--help"], terminal_width=80).output
    (line,) = [line for line in overview.splitlines() if line.startswith(f"  {name} ")]
    assert line.endswith(main.sentences[name]) and len(line) <= 80


def test_a_wrong_command_says_the_nearest():
    result = CliRunner().invoke(main, ["encod", "a.png"])
    assert result.exit_code == 2 and "did you mean 'encode'" in result.stderr


def test_the_overview_imports_neither_torch_nor_a_command():
    code = (
        "import sys; from vistok.cli import main; main(['--help'], standalone_mode=False); "
        "print([n for n in ('torch', 'pydantic', 'vistok.cli.codes') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().endswith("[]")  # a process of its own: nothing is imported before
