"""`vistok generate`: images or clips from a generator and the tokenizer of its tokens."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import click

from vistok.cli.media import image_format, write
from vistok.cli.outputs import claim, overwrite_option, say
from vistok.cli.shared import (
    condition_of,
    settings,
    text_option,
    with_size,
    words_and_settings,
)
from vistok.config.errors import InputError, one_line_errors

_MOST = 10_000  # samples of one grid, which are sampled together


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="GENERATOR [TOKENIZER] [KEY=VALUE]...")
@click.option("--class", "name", help="Class name or number; all of them if left out.")
@click.option("--count", default=8, show_default=True, help="Samples of each class.")
@click.option("--length", type=int, help="Stop after this many tokens.")
@click.option("--seed", default=0, show_default=True)
@click.option("--size", help="Pixels of a side, or HEIGHTxWIDTH, of a decoder of any size.")
@click.option("--out", default="generated.png", show_default=True)
@text_option
@overwrite_option
@one_line_errors
def generate(
    words: tuple[str, ...],
    name: str | None,
    count: int,
    length: int | None,
    seed: int,
    size: str | None,
    out: str,
    text: str | None,
    overwrite: bool,
) -> None:
    """Sample from GENERATOR and decode with TOKENIZER into one grid.

    TOKENIZER may be left out if the one whose tokens were learned is where it was; another one
    than that is refused. KEY=VALUE: sampling.temperature=0.9 and so on change the generator's
    settings, sampling.preset=unguided takes a named set of them, decoder_sampling.steps=10 changes
    those of a decoder that samples; `vistok info` prints all of them.
    """
    import torch

    from vistok import pretrained
    from vistok.core.records import Condition

    names, given = words_and_settings(words)
    if len(names) not in (1, 2):
        raise click.UsageError("name a generator, and perhaps its tokenizer")
    if count < 1:
        raise InputError(f"--count {count}: expected 1 or more")
    image_format(out)
    changes = settings(given, "sampling", "decoder_sampling")
    model = pretrained.open(names[0], expect="generator")
    owner = _owner(names[0], model, names[1] if len(names) == 2 else None)
    chosen, decoding = (
        model.settings(changes["sampling"]),
        owner.settings(changes["decoder_sampling"]),
    )
    if length is not None:
        model.spec.check_length(length)
    if not model.num_classes and name is not None:
        raise InputError(f"--class {name}: this generator was trained without classes")
    picked = range(model.num_classes) if name is None else [_class(name, model)]
    total = count * max(1, len(picked))
    if total > _MOST:
        raise InputError(
            f"--count {count}: {total} samples in one grid; expected at most {_MOST}: name one "
            "--class, or a smaller count"
        )
    labels = torch.tensor(picked).repeat_interleave(count) if model.num_classes else None
    index = torch.arange(total)
    reads = model.config.condition.text is not None and text is not None
    said = owner.condition([text]) if reads else condition_of(owner, text, "decoder")
    if said is not None:
        said = said.select([0] * len(index))
    condition = replace(said, label=labels) if reads else Condition(label=labels)
    said = with_size(owner, said, size)
    claim([out], overwrite)
    tokens = model.sample(condition, index=index, seed=seed, length=length, sampling=chosen)
    pixels = owner.decode(tokens, said, seed=seed, index=index, sampling=decoding)
    write(pixels, out, columns=count)
    say(out)


def _owner(name: str, model: Any, given: str | None) -> Any:
    """The tokenizer whose tokens a generator learned: `given`, else where its record says it is.

    InputError for another one, as its weights tell: it would decode noise.
    """
    from vistok.pretrained.identity import identify
    from vistok.storage.lineage import pairing

    made_by = model.tokenizer.get("name")
    if given is None and not made_by:
        raise InputError(f"{name}: it does not say whose tokens it learned; name the tokenizer too")
    try:
        owner, identity = identify(given or made_by)
    except ValueError as error:
        if given is not None:
            raise
        raise InputError(f"{name}: its tokenizer: {error}; or name the tokenizer too") from None
    pair = pairing(model.tokenizer, identity)
    if given is None and pair.refused:
        raise InputError(
            f"{name}: it learned tokens of other weights than {made_by} has now ({pair.text}); "
            "name the tokenizer too"
        )
    if pair.refused:
        raise InputError(
            f"{given}: not the tokenizer whose tokens {name} learned: {pair.text}; it would decode "
            f"noise: name the one that was {made_by or 'its tokenizer'} then"
        )
    if pair.text:
        say(f"{given or made_by}: {pair.text}")
    if owner.spec() != model.spec:
        raise InputError(
            f"{given or made_by}: its tokens are {_tokens(owner.spec())}, those of {name} "
            f"{_tokens(model.spec)}; name the tokenizer whose tokens it learned"
        )
    return owner


def _tokens(spec: Any) -> str:
    blocks = ", ".join("x".join(map(str, block)) for block in spec.blocks[:4])
    more = ", ..." if len(spec.blocks) > 4 else ""
    vocab = " x ".join(map(str, spec.vocab[:4])) + (" x ..." if len(spec.vocab) > 4 else "")
    return f"blocks {blocks}{more} of vocabulary {vocab or 'continuous'} (prefix {spec.prefix})"


def _class(name: str, model: Any) -> int:
    """The number of a class that is given by its name or its number."""
    places = [number for number, one in enumerate(model.classes) if one == name]
    if len(places) > 1:
        raise InputError(
            f"--class {name}: classes {' and '.join(map(str, places))} have this name; give the "
            "number"
        )
    if places:
        return places[0]
    if re.fullmatch("[0-9]{1,9}", name) and int(name) < model.num_classes:
        return int(name)
    shown = ", ".join(model.classes[:20]) + (", ..." if len(model.classes) > 20 else "")
    named = f"{shown} or " if shown else ""
    raise InputError(f"--class {name}: expected one of {named}0..{model.num_classes - 1}")
