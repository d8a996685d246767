"""`vistok generate`: images or clips from a generator and the tokenizer of its tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from vistok.cli.shared import (
    condition_of,
    open_tokenizer,
    settings,
    text_option,
    words_and_settings,
    write,
)
from vistok.config.errors import InputError, one_line_errors


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="GENERATOR [TOKENIZER] [KEY=VALUE]...")
@click.option("--class", "name", help="Class name or number; all of them if left out.")
@click.option("--count", default=8, show_default=True, help="Samples of each class.")
@click.option("--length", type=int, help="Stop after this many tokens.")
@click.option("--seed", default=0, show_default=True)
@click.option("--out", default="generated.png", show_default=True)
@text_option
@one_line_errors
def generate(
    words: tuple[str, ...],
    name: str | None,
    count: int,
    length: int | None,
    seed: int,
    out: str,
    text: str | None,
) -> None:
    """Sample from GENERATOR and decode with TOKENIZER into one grid.

    TOKENIZER may be left out if the one whose tokens were learned is where it was. KEY=VALUE:
    sampling.temperature=0.9 and so on change the generator's settings, decoder_sampling.steps=10
    those of a decoder that samples; `vistok info` prints both.
    """
    import torch

    from vistok import pretrained
    from vistok.core.records import Condition

    names, given = words_and_settings(words)
    if len(names) not in (1, 2):
        raise click.UsageError("name a generator, and perhaps its tokenizer")
    changes = settings(given, "sampling", "decoder_sampling")
    model = pretrained.open(names[0], expect="generator")
    owner = open_tokenizer(names[1]) if len(names) == 2 else _owner(names[0], model)
    labels = None
    if model.classes:
        chosen = range(len(model.classes)) if name is None else [_class(name, model.classes)]
        labels = torch.tensor([c for c in chosen for _ in range(count)])
    elif name is not None:
        raise InputError(f"--class {name}: this generator was trained without classes")
    index = torch.arange(count if labels is None else len(labels))
    reads = model.config.condition.text is not None and text is not None
    said = owner.condition([text]) if reads else condition_of(owner, text, "decoder")
    if said is not None:
        said = said.select([0] * len(index))
    condition = replace(said, label=labels) if reads else Condition(label=labels)
    tokens = model.sample(
        condition, index=index, seed=seed, length=length, sampling=changes["sampling"]
    )
    pixels = owner.decode(
        tokens, said, seed=seed, index=index, sampling=changes["decoder_sampling"]
    )
    write(pixels, Path(out), columns=count)
    click.echo(out)


def _owner(name: str, model: Any) -> Any:
    """The tokenizer whose tokens a generator learned, where its record says it is."""
    from vistok import pretrained
    from vistok.storage.hub import WEIGHTS
    from vistok.storage.weights import sha256

    made_by = model.tokenizer.get("name")
    if not made_by:
        raise InputError(f"{name}: it does not say whose tokens it learned; name the tokenizer too")
    try:
        folder = pretrained.saved_folder(made_by, expect="tokenizer")
    except ValueError as error:
        raise InputError(f"{name}: its tokenizer: {error}; or name the tokenizer too") from None
    if sha256(folder / WEIGHTS) != model.tokenizer.get("sha256"):
        raise InputError(
            f"{name}: it learned tokens of other weights than {made_by} has now; name the "
            "tokenizer too"
        )
    return pretrained.open(folder)


def _class(name: str, classes: tuple[str, ...]) -> int:
    if name in classes:
        return classes.index(name)
    if name.isdigit() and int(name) < len(classes):
        return int(name)
    raise InputError(
        f"--class {name}: expected one of {', '.join(classes)} or 0..{len(classes) - 1}"
    )
