"""Completion in the shell: names of models, of configs and of studies; everything else is a file.

eval "$(_VISTOK_COMPLETE=bash_source vistok)"        # in ~/.bashrc; zsh_source, fish_source too
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem

EVALUATIONS = ("verify", "leaderboard", "speed", "reference")
"""Sub-commands of `vistok eval`; its study is a command of its own."""


def models(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Runs of this folder and released models; a path, where it begins like one."""
    from vistok.pretrained.sizes import GENERATORS, SIZES

    runs = [str(path.parent) for path in sorted(Path("runs").glob("*/model"))]
    return _of([*runs, *SIZES, *GENERATORS], incomplete)


def evaluations(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Words of `vistok eval`: its sub-commands and models; behind `verify` released models."""
    from vistok.pretrained.sizes import GENERATORS, SIZES

    given = context.params.get(parameter.name or "") or ()
    if given[:1] == ("verify",):
        return _of([*SIZES, *GENERATORS], incomplete)
    if given[:1] in (("leaderboard",), ("reference",)):
        return _files(incomplete)
    words = [] if given else [CompletionItem(n) for n in EVALUATIONS if n.startswith(incomplete)]
    found = [one for one in models(context, parameter, incomplete) if one.type != "file"]
    return [*words, *found] or _files(incomplete)


def model_then_files(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """A model as the first of several words, then files."""
    given = context.params.get(parameter.name or "")
    return _files(incomplete) if given else models(context, parameter, incomplete)


def configs(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Configs that come with vistok, for `vistok train`."""
    from vistok.config.shipped import trained

    return _of(trained(), incomplete)


def studies(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Studies that come with vistok, by their short names."""
    from vistok.config.shipped import shipped

    names = [name for name in shipped() if name.startswith("studies/")]
    return _of([*(name.rpartition("/")[2] for name in names), *names], incomplete)


def models_and_configs(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    found = models(context, parameter, incomplete) + configs(context, parameter, incomplete)
    return [item for item in found if item.type != "file"] or _files(incomplete)


def _of(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    found = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return found or _files(incomplete)


def _files(incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="file")]
