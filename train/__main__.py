"""`python -m train CONFIG [key=value ...]`; the same under torchrun and accelerate launch."""

from __future__ import annotations

from vistok.train import signals

if __name__ == "__main__":
    signals.install()  # first of all: what is imported below takes seconds

import click

from vistok.config import load_plugins, read_yaml, validate
from vistok.config.errors import one_line_errors


@click.command()
@click.argument("config", type=click.Path())
@click.argument("overrides", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Print the config and the plan of the run, and stop.")
@one_line_errors
def main(config: str, overrides: tuple[str, ...], dry_run: bool) -> None:
    """Train what the YAML file CONFIG says.

    OVERRIDES are key.sub=value; plugins=my.module imports your own parts first. Errors are one
    line; VISTOK_DEBUG=1 shows the traceback.
    """
    plugins = [o.removeprefix("plugins=") for o in overrides if o.startswith("plugins=")]
    tree = read_yaml(config, [o for o in overrides if not o.startswith("plugins=")])
    from vistok.train.config import TrainConfig

    load_plugins(name for names in plugins for name in names.strip("[]").split(","))
    resolved = validate(TrainConfig, tree, config)
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
