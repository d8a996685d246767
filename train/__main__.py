"""`python -m vistok.train CONFIG [KEY=VALUE ...]`, and `vistok train`; the same under torchrun and
accelerate launch. In a checkout `python -m train` does it too."""

from __future__ import annotations

from vistok.train import signals

if __name__ == "__main__":
    signals.install()  # first of all: what is imported below takes seconds

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from vistok.cli.verbosity import add_verbosity
from vistok.config import read_yaml, shipped, take_plugins, validate
from vistok.config.errors import one_line_errors
from vistok.config.overrides import parse
from vistok.config.schema_files import check


def _list(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    """Print the shipped training configs and stop."""
    if not wanted or context.resilient_parsing:
        return
    for name, path in shipped.trained().items():
        click.echo(f"{name:46} {shipped.describe(path)}")
    context.exit()


def _given(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The config without data that lack a kind: those of a tokenizer's run may come below them."""
    data = tree.get("data")
    partial = isinstance(data, Mapping) and "kind" not in data
    return {key: value for key, value in tree.items() if key != "data" or not partial}


@add_verbosity
@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("config", type=click.Path())
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--dry-run", is_flag=True, help="Print the config and the plan of the run, and stop.")
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list,
    help="Print the configs that come with vistok, and stop.",
)
@one_line_errors
def main(config: str, overrides: tuple[str, ...], dry_run: bool) -> None:
    """Train what CONFIG says: a YAML file, or the name of a config that comes with vistok.

    KEY=VALUE changes a key of it; the same command resumes a run that was stopped.
    plugins=my.module imports your own parts first. On several GPUs: accelerate launch -m
    vistok.train CONFIG.

    \b
    Examples:
      vistok train quickstart
      vistok train quickstart name=mine data.kind=folder data.path=my/images
      vistok train quickstart steps=200 task.losses.1.weight=0.5 --dry-run
    """
    words = take_plugins(overrides)
    tree = read_yaml(config, words)
    check("train", _given(tree), config)  # before the imports, which take seconds
    from vistok.data.addresses import check_addresses
    from vistok.storage.trained import RUN_CONFIG
    from vistok.train.config import TrainConfig
    from vistok.train.jobs.run_data import with_run_data

    tree, run = with_run_data(tree)
    resolved = validate(TrainConfig, tree, config)
    if run is None and Path(config).name == RUN_CONFIG:  # as runs write it, perhaps somebody else's
        run = Path(config)
    if run is not None and resolved.data is not None:
        check_addresses(resolved.data, run, parse(words).get("data"))
    if dry_run:
        from vistok.train.cost.dry_run import print_plan

        print_plan(resolved)
        return
    from vistok.train.loop import train
    from vistok.train.memory import keep_freed_memory

    keep_freed_memory()
    train(resolved)


if __name__ == "__main__":
    main()
