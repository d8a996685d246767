"""`vistok train`, `eval`, `study` and `cache`: the programs of vistok.train and vistok.eval.

The library does not know them, so they are imported by name when they are called.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import click

from vistok.cli.completion import configs, evaluations, models, studies

_ALL = {"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []}


def _words(metavar: str, names: Callable[..., Any]) -> Callable[[Any], Any]:
    """The words of a program, as they are; names: their completion in the shell."""
    return click.argument(
        "words", nargs=-1, type=click.UNPROCESSED, metavar=metavar, shell_complete=names
    )


@click.command(context_settings=_ALL, add_help_option=False)
@_words("CONFIG [KEY=VALUE]...", configs)
def train(words: tuple[str, ...]) -> None:
    """Train what a config says; `vistok train --list` names those that come with vistok."""
    importlib.import_module("vistok.train.signals").install()  # what follows takes seconds
    program = importlib.import_module("vistok.train.__main__")
    program.main(args=list(words), prog_name="vistok train")


@click.command("eval", context_settings=_ALL, add_help_option=False)
@_words("RUN... [KEY=VALUE]...", evaluations)
def evaluate(words: tuple[str, ...]) -> None:
    """Measure runs or saved models and write a report; `vistok eval --help` says how."""
    program = importlib.import_module("vistok.eval.__main__")
    sys.argv = ["vistok eval", *words]
    program.main()


@click.command(context_settings=_ALL, add_help_option=False)
@_words("NAME|FILE [KEY=VALUE]...", studies)
def study(words: tuple[str, ...]) -> None:
    """Train and compare the runs of a study; `vistok list studies` names those with vistok."""
    program = importlib.import_module("vistok.eval.__main__")
    sys.argv = ["vistok eval", "study", *words]  # reports say the command that they were made by
    program.study(args=list(words), prog_name="vistok study")


@click.command(context_settings=_ALL, add_help_option=False)
@_words("RUN [KEY=VALUE]...", models)
def cache(words: tuple[str, ...]) -> None:
    """Encode a whole data set once with a tokenizer; `vistok cache --help` says how."""
    importlib.import_module("vistok.train.signals").install()
    program = importlib.import_module("vistok.train.cache_command")
    program.cache(args=list(words), prog_name="vistok cache")
