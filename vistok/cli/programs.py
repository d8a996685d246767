"""`vistok train`, `eval` and `study`: the programs of vistok.train and vistok.eval.

The library does not know them, so they are imported by name when they are called.
"""

from __future__ import annotations

import importlib
import sys

import click

_ALL = {"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []}


@click.command(context_settings=_ALL, add_help_option=False)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="CONFIG [KEY=VALUE]...")
def train(words: tuple[str, ...]) -> None:
    """Train what a config says; `vistok train --list` names those that come with vistok."""
    importlib.import_module("vistok.train.signals").install()  # what follows takes seconds
    program = importlib.import_module("vistok.train.__main__")
    program.main(args=list(words), prog_name="vistok train")


@click.command("eval", context_settings=_ALL, add_help_option=False)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="RUN... [KEY=VALUE]...")
def evaluate(words: tuple[str, ...]) -> None:
    """Measure runs or saved models and write a report; `vistok eval --help` says how."""
    program = importlib.import_module("vistok.eval.__main__")
    sys.argv = ["vistok eval", *words]
    program.main()


@click.command(context_settings=_ALL, add_help_option=False)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="NAME|FILE [KEY=VALUE]...")
def study(words: tuple[str, ...]) -> None:
    """Train and compare the runs of a study; `vistok list studies` names those with vistok."""
    program = importlib.import_module("vistok.eval.__main__")
    sys.argv = ["vistok eval", "study", *words]  # reports say the command that they were made by
    program.study(args=list(words), prog_name="vistok study")
