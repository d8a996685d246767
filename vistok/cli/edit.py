"""`vistok edit`: images changed through their tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import click

from vistok.cli.completion import models
from vistok.cli.media import image_format, write
from vistok.cli.outputs import claim, overwrite_option, say
from vistok.cli.shared import (
    condition_of,
    images_only,
    open_tokenizer,
    read,
    settings,
    text_option,
)
from vistok.config.errors import InputError, one_line_errors


@click.group()
def edit() -> None:
    """Change an image through its tokens; nothing is trained.

    copy takes tokens of another image, inpaint fills a hole, match moves an image towards another.
    """


@edit.command("copy")
@click.argument("model", shell_complete=models)
@click.argument("image", type=click.Path())
@click.argument("source", type=click.Path())
@click.argument("words", nargs=-1, metavar="[sampling.KEY=VALUE]...")
@click.option("--positions", required=True, help="Token positions, such as 0,3 or 0-3.")
@click.option("--out", default="edited.png", show_default=True)
@text_option
@overwrite_option
@one_line_errors
def edit_copy(
    model: str,
    image: str,
    source: str,
    words: tuple[str, ...],
    positions: str,
    out: str,
    text: str | None,
    overwrite: bool,
) -> None:
    """Give IMAGE the tokens of SOURCE at some positions, and decode.

    \b
    Examples:
      vistok edit copy runs/mine a.png b.png --positions 0-3
    """
    from vistok.editing import copy_tokens

    sampling = settings(words, "sampling")["sampling"]
    tokenizer, condition = _begin(model, "edit copy", text, out, overwrite)
    chosen = tokenizer.settings(sampling)
    places = _positions(positions, tokenizer.spec().length)
    target, given = (
        tokenizer.encode(read([path], tokenizer), condition=condition) for path in (image, source)
    )
    edited = copy_tokens(target, given, places)
    write(tokenizer.decode(edited, condition, sampling=chosen), out)
    say(out)


@edit.command("inpaint")
@click.argument("model", shell_complete=models)
@click.argument("image", type=click.Path())
@click.argument("mask", type=click.Path())
@click.argument("words", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--steps", default=300, show_default=True)
@click.option("--lr", default=0.1, show_default=True)
@click.option("--every", default=0, show_default=True, help="Steps between re-encodings; 0: none.")
@click.option("--seed", default=0, show_default=True)
@click.option("--out", default="edited.png", show_default=True)
@text_option
@overwrite_option
@one_line_errors
def edit_inpaint(
    model: str,
    image: str,
    mask: str,
    words: tuple[str, ...],
    out: str,
    every: int,
    text: str | None,
    overwrite: bool,
    **options: Any,
) -> None:
    """Fill what is black in the image MASK from the rest of IMAGE.

    KEY=VALUE: any key of vistok.editing.EditConfig, such as ema=0.98 or after_quantizer=true.

    \b
    Examples:
      vistok edit inpaint runs/mine a.png hole.png steps=600 ema=0.98
    """
    from vistok.editing import inpaint

    config = _edit_config(options, words)
    tokenizer, condition = _begin(model, "edit inpaint", text, out, overwrite)
    pixels, hole = read([image, mask], tokenizer).split(1)
    known = (hole.mean(1, keepdim=True) > 0.5).float()
    found = inpaint(tokenizer, pixels, known, config, every=every, condition=condition)
    _write_edited(found, out)


@edit.command("match")
@click.argument("model", shell_complete=models)
@click.argument("image", type=click.Path())
@click.argument("target", type=click.Path())
@click.argument("words", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--steps", default=300, show_default=True)
@click.option("--lr", default=0.1, show_default=True)
@click.option("--pull", default=0.0, show_default=True, help="Weight of staying near IMAGE.")
@click.option("--noise", default=0.0, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--out", default="edited.png", show_default=True)
@text_option
@overwrite_option
@one_line_errors
def edit_match(
    model: str,
    image: str,
    target: str,
    words: tuple[str, ...],
    out: str,
    text: str | None,
    overwrite: bool,
    **options: Any,
) -> None:
    """Start from IMAGE and optimize its tokens towards TARGET's pixels.

    KEY=VALUE: any key of vistok.editing.EditConfig, such as ema=0.98 or after_quantizer=true.

    \b
    Examples:
      vistok edit match runs/mine a.png b.png pull=0.1
    """
    from vistok.editing import match, optimize

    config = _edit_config(options, words)
    tokenizer, condition = _begin(model, "edit match", text, out, overwrite)
    pixels, wanted = read([image, target], tokenizer).split(1)
    found = optimize(tokenizer, match(wanted), pixels, config, condition=condition)
    _write_edited(found, out)


def _begin(
    model: str, command: str, text: str | None, out: str, overwrite: bool
) -> tuple[Any, Any]:
    """(tokenizer, condition); errors of the model, of the text and of the output come here."""
    image_format(out)
    tokenizer = open_tokenizer(model)
    images_only(tokenizer, command)
    condition = condition_of(tokenizer, text)
    claim([out], overwrite)
    return tokenizer, condition


def _write_edited(found: Any, out: str) -> None:
    """Write the image that an optimization found, and say how far its loss fell."""
    write(found.pixels, out)
    say(f"{out} (loss {found.losses[0, 0]:.4g} -> {found.losses[-1, 0]:.4g})")


def _edit_config(options: dict[str, Any], words: Sequence[str]) -> Any:
    """The settings of an optimization: KEY=VALUE words over the options."""
    from vistok.config import validate
    from vistok.config.overrides import parse
    from vistok.editing import EditConfig

    return validate(EditConfig, {**options, **parse(words)}, "vistok edit")


def _positions(text: str, length: int) -> list[int]:
    """ "0,3-5" -> [0, 3, 4, 5]; InputError for anything else and for positions beyond `length`."""
    found: list[int] = []
    for part in text.split(","):
        one = re.fullmatch(r"\s*([0-9]{1,18})\s*(?:-\s*([0-9]{1,18})\s*)?", part)
        if one is None:
            raise InputError(f"--positions {text}: expected numbers and ranges, such as 0,3-5")
        first, last = int(one[1]), int(one[2] or one[1])
        if last < first:
            raise InputError(
                f"--positions {text}: {first}-{last} runs backwards; expected {last}-{first}"
            )
        if last >= length:
            raise InputError(
                f"--positions {text}: position {last}; expected 0..{length - 1}, the tokens of "
                "this tokenizer"
            )
        found += range(first, last + 1)
    return found
