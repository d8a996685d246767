"""The `vistok` command: train and evaluate, look at a model, encode, decode, generate, edit.

One file per group of commands. They import torch only when they run, so that `--help` is quick.
"""

from __future__ import annotations

import click

from vistok.cli import check, codes, convert, edit, generate, info, programs


@click.group()
@click.version_option(package_name="vistok")
def main() -> None:
    """Discrete image and video tokenizers: train, evaluate, look at, encode, decode, generate.

    A MODEL is a run, a folder made by save_pretrained, a hub id owner/name, a released name such
    as titok-l32, or official weights. Settings are KEY=VALUE words, such as sampling.steps=10.
    """


for command in (
    programs.train,
    programs.evaluate,
    info.info,
    check.check,
    codes.encode,
    codes.decode,
    generate.generate,
    edit.edit,
    convert.import_,
):
    main.add_command(command)
