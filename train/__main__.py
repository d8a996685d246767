"""`python -m train CONFIG [key=value ...]`; the same under torchrun and accelerate launch."""

from __future__ import annotations

import os
import sys

import click

from vistok.config import ConfigError, load_plugins, read_yaml, validate
from vistok.data.base import BadSample


@click.command(context_settings={"ignore_unknown_options": False})
@click.argument("config", type=click.Path())
@click.argument("overrides", nargs=-1)
def main(config: str, overrides: tuple[str, ...]) -> None:
    """Train what the YAML file CONFIG says.

    OVERRIDES are key.sub=value; plugins=my.module imports your own parts first. Errors are one
    line; VISTOK_DEBUG=1 shows the traceback.
    """
    try:
        own = [o.removeprefix("plugins=") for o in overrides if o.startswith("plugins=")]
        tree = read_yaml(config, [o for o in overrides if not o.startswith("plugins=")])
        from train.config import TrainConfig  # heavy: parts, torch

        load_plugins(name for names in own for name in names.strip("[]").split(","))
        resolved = validate(TrainConfig, tree, config)
        from train.loop import train

        train(resolved)
    except (ValueError, FloatingPointError, OSError, BadSample) as error:
        if os.environ.get("VISTOK_DEBUG"):
            raise
        click.echo(f"error: {error}", err=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)


if __name__ == "__main__":
    main()
