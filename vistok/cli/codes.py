"""`vistok encode` and `vistok decode`: images and clips to .tok files and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from vistok.cli.shared import (
    condition_of,
    frame_rate,
    open_tokenizer,
    read,
    settings,
    text_option,
    words_and_settings,
    write,
    write_clip,
)
from vistok.config.errors import InputError, one_line_errors
from vistok.core.regular_files import open_regular

_FPS = 8.0  # of clips whose tokens do not say


@click.command()
@click.argument("model")
@click.argument("files", nargs=-1, required=True, type=click.Path())
@click.option("--out", default=".", show_default=True, help="Folder for the .tok files.")
@click.option("--length", type=int, help="Keep a prefix of this many (`vistok info`: lengths).")
@text_option
@one_line_errors
def encode(
    model: str, files: tuple[str, ...], out: str, length: int | None, text: str | None
) -> None:
    """Encode images, or the beginnings of videos, into .tok files.

    They are center-cropped to the size of MODEL; of a video its first frames are taken.
    """
    from vistok.storage.files import write_bytes

    tokenizer = open_tokenizer(model)
    condition = condition_of(tokenizer, text, "encoder")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    for path in files:
        tokens = tokenizer.encode(read([path], tokenizer), length, condition)
        if tokenizer.shape.is_clip:
            tokens = replace(tokens, fps=frame_rate(path))
        data = tokens.to_bytes()[0]
        target = folder / f"{Path(path).stem}.tok"
        write_bytes(target, data)
        click.echo(f"{path} -> {target} ({len(data)} bytes)")


@click.command()
@click.argument("model")
@click.argument("words", nargs=-1, required=True, metavar="FILE... [sampling.KEY=VALUE]...")
@click.option("--out", default=".", show_default=True, help="Folder for the images or clips.")
@click.option("--length", type=int, help="Decode only this prefix.")
@click.option("--seed", default=0, show_default=True, help="Seed of a decoder that samples.")
@click.option(
    "--format",
    "suffix",
    type=click.Choice(["png", "gif", "mp4"]),
    help="Default: png for images, gif for clips; png of a clip is a row of its frames.",
)
@text_option
@one_line_errors
def decode(
    model: str,
    words: tuple[str, ...],
    out: str,
    length: int | None,
    seed: int,
    suffix: str | None,
    text: str | None,
) -> None:
    """Decode .tok files into images or clips.

    sampling.KEY=VALUE changes the settings of a decoder that samples; `vistok info` prints them.
    """
    from vistok.tokens import Tokens

    files, given = words_and_settings(words)
    sampling = settings(given, "sampling")["sampling"]
    tokenizer = open_tokenizer(model)
    condition = condition_of(tokenizer, text, "decoder")
    clip = tokenizer.shape.is_clip
    suffix = suffix or ("gif" if clip else "png")
    if suffix != "png" and not clip:
        raise InputError(f"--format {suffix}: {model} makes images; expected png")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    for path in files:
        try:
            with open_regular(path, "rb") as file:
                tokens = Tokens.from_bytes([file.read()], tokenizer.spec())
        except ValueError as error:
            raise InputError(f"{path}: {error}") from None
        if length is not None:
            tokens = tokens.prefix(length)
        target = folder / f"{Path(path).stem}.{suffix}"
        pixels = tokenizer.decode(tokens, condition, seed=seed, sampling=sampling)
        if suffix == "png":
            write(pixels, target)
        else:
            write_clip(pixels[0], target, tokens.fps or _FPS)
        click.echo(f"{path} -> {target}")
