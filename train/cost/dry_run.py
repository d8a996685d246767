"""`--dry-run`: print the plan of a run; nothing is trained, nothing is written."""

from __future__ import annotations

import logging
import os
import shutil

import click

from vistok.core.text import printable
from vistok.train.config import TrainConfig
from vistok.train.cost.plan import make_plan
from vistok.train.cost.plan_text import config_text, plan_text
from vistok.train.parallel.wrap import wants_sharding


def print_plan(config: TrainConfig) -> None:
    """Print the resolved config as YAML, then the plan; under a launcher the first process does."""
    if int(os.environ.get("RANK", "0")):
        return
    logging.getLogger("torch").setLevel(logging.ERROR)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    plan = make_plan(config, world, wants_sharding(config.sharding, world))
    width = min(max(60, shutil.get_terminal_size((100, 24)).columns), 120)
    text = f"{config_text(config, width)}\n{plan_text(plan, width)}"
    click.echo(printable(text, keep="\n"), nl=False)
