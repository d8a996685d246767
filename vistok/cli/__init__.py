"""The `vistok` command: everything that vistok does, one line below for each command.

A command is imported when it is called, and imports torch when it runs, so that `vistok --help` is
quick.
"""

from __future__ import annotations

import click

from vistok.cli.group import Commands

COMMANDS = {
    "Train and measure": (
        ("train", "vistok.cli.programs:train", "Train a tokenizer or generator from a config"),
        ("eval", "vistok.cli.programs:evaluate", "Measure models and write a report"),
        ("study", "vistok.cli.programs:study", "Train the runs of a study and compare them"),
        ("cache", "vistok.cli.programs:cache", "Encode a whole data set once, to train on tokens"),
    ),
    "Use a model": (
        ("encode", "vistok.cli.codes:encode", "Encode images or clips into .vtk files"),
        ("decode", "vistok.cli.codes:decode", "Decode .vtk files into images or clips"),
        ("generate", "vistok.cli.generate:generate", "Sample images or clips from a generator"),
        ("edit", "vistok.cli.edit:edit", "Change an image through its tokens"),
        ("import", "vistok.cli.convert:import_", "Convert released weights to vistok's format"),
    ),
    "Look": (
        ("info", "vistok.cli.info:info", "Show the parts, tokens and license of a model"),
        ("check", "vistok.cli.check:check", "Scan a data set before training on it"),
        ("try", "vistok.cli.try_:try_", "Show an image at every length, beside JPEG and WebP"),
        ("demo", "vistok.cli.demo:demo", "Try tokenizers in a page on this machine"),
        ("list", "vistok.cli.listing:list_", "List released models, configs, parts, metrics"),
        ("schema", "vistok.cli.schema:schema", "Write the JSON schema of configs, for editors"),
    ),
    "More": (
        ("test-part", "vistok.cli.contract:test_part", "Test a part of your own before training"),
        ("frequencies", "vistok.cli.frequencies:frequencies", "Count codes for smaller files"),
    ),
}
"""Heading -> (name, module:function, sentence of the overview) of each command, in this order."""


@click.group(
    cls=Commands,
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog='Completion in the shell: eval "$(_VISTOK_COMPLETE=bash_source vistok)", or zsh_source, '
    "fish_source.",
)
@click.version_option(package_name="vistok")
def main() -> None:
    """Train, measure and use discrete image and video tokenizers.

    A MODEL is a run (runs/mine), a folder made by save_pretrained, hf:owner/name of the hub,
    vistok-128 (in the package), a released name such as titok-l32, or official weights. Settings
    are KEY=VALUE words, such as sampling.steps=10; plugins=my.module loads your own parts first,
    in every command.
    """
