"""`vistok edit`: images changed through their tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vistok.cli.shared import (
    condition_of,
    images_only,
    open_tokenizer,
    read,
    text_option,
    write,
)
from vistok.config.errors import InputError, one_line_errors


@click.group()
def edit() -> None:
    """Change images through their tokens; nothing is trained."""


@edit.command("copy")
@click.argument("model")
@click.argument("image", type=click.Path())
@click.argument("source", type=click.Path())
@click.option("--positions", required=True, help="Token positions, such as 0,3 or 0-3.")
@click.option("--out", default="edited.png", show_default=True)
@text_option
@one_line_errors
def edit_copy(
    model: str, image: str, source: str, positions: str, out: str, text: str | None
) -> None:
    """Give IMAGE the tokens of SOURCE at some positions, and decode."""
    from vistok.editing import copy_tokens

    tokenizer = open_tokenizer(model)
    images_only(tokenizer, "edit copy")
    condition = condition_of(tokenizer, text)
    target, given = (
        tokenizer.encode(read([path], tokenizer), condition=condition) for path in (image, source)
    )
    edited = copy_tokens(target, given, _positions(positions))
    write(tokenizer.decode(edited, condition), Path(out))
    click.echo(out)


@edit.command("inpaint")
@click.argument("model")
@click.argument("image", type=click.Path())
@click.argument("mask", type=click.Path())
@click.option("--steps", default=300, show_default=True)
@click.option("--lr", default=0.1, show_default=True)
@click.option("--every", default=0, show_default=True, help="Steps between re-encodings; 0: none.")
@click.option("--seed", default=0, show_default=True)
@click.option("--out", default="edited.png", show_default=True)
@text_option
@one_line_errors
def edit_inpaint(
    model: str, image: str, mask: str, out: str, every: int, text: str | None, **settings: Any
) -> None:
    """Fill what is black in MASK (an image of IMAGE's size) from the rest."""
    from vistok.editing import inpaint

    tokenizer = open_tokenizer(model)
    images_only(tokenizer, "edit inpaint")
    pixels, hole = read([image, mask], tokenizer).split(1)
    known, condition = (hole.mean(1, keepdim=True) > 0.5).float(), condition_of(tokenizer, text)
    config = _edit_config(settings)
    found = inpaint(tokenizer, pixels, known, config, every=every, condition=condition)
    _write_edited(found, out)


@edit.command("match")
@click.argument("model")
@click.argument("image", type=click.Path())
@click.argument("target", type=click.Path())
@click.option("--steps", default=300, show_default=True)
@click.option("--lr", default=0.1, show_default=True)
@click.option("--pull", default=0.0, show_default=True, help="Weight of staying near IMAGE.")
@click.option("--noise", default=0.0, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--out", default="edited.png", show_default=True)
@text_option
@one_line_errors
def edit_match(
    model: str, image: str, target: str, out: str, text: str | None, **settings: Any
) -> None:
    """Start from IMAGE and optimize its tokens towards TARGET's pixels."""
    from vistok.editing import match, optimize

    tokenizer = open_tokenizer(model)
    images_only(tokenizer, "edit match")
    pixels, wanted = read([image, target], tokenizer).split(1)
    config, condition = _edit_config(settings), condition_of(tokenizer, text)
    found = optimize(tokenizer, match(wanted), pixels, config, condition=condition)
    _write_edited(found, out)


def _write_edited(found: Any, out: str) -> None:
    """The image that an optimization found, and how far its loss fell."""
    write(found.pixels, Path(out))
    click.echo(f"{out} (loss {found.losses[0, 0]:.4g} -> {found.losses[-1, 0]:.4g})")


def _edit_config(settings: dict[str, Any]) -> Any:
    from vistok.config import validate
    from vistok.editing import EditConfig

    return validate(EditConfig, settings, "options")


def _positions(text: str) -> list[int]:
    """ "0,3-5" -> [0, 3, 4, 5]."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise InputError(f"--positions {text}: expected numbers and ranges, such as 0,3-5")
        found += range(int(first), int(last or first) + 1)
    return found
