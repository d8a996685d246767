"""The `vistok` command: train and evaluate, look at a model, encode, decode, generate, edit.

One file per group of commands. They import torch only when they run, so that `--help` is quick.
"""

from __future__ import annotations

import click

from vistok.cli import check, codes, convert, edit, frequencies, generate, info, programs
from vistok.config import take_plugins
from vistok.config.errors import one_line_errors


class _Commands(click.Group):
    """Takes `plugins=` out of the words of every command."""

    @one_line_errors
    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(context, take_plugins(args))


@click.group(cls=_Commands)
@click.version_option(package_name="vistok")
def main() -> None:
    """Discrete image and video tokenizers: train, evaluate, look at, encode, decode, generate.

    A MODEL is a run, a folder made by save_pretrained, hf:owner/name of the hub, a released name
    such as titok-l32, or official weights. Settings are KEY=VALUE words, such as sampling.steps=10;
    plugins=my.module loads your own parts first.
    """


for command in (
    programs.train,
    programs.evaluate,
    info.info,
    check.check,
    codes.encode,
    codes.decode,
    frequencies.frequencies,
    generate.generate,
    edit.edit,
    convert.import_,
):
    main.add_command(command)
