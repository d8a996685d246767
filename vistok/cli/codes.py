"""`vistok encode` and `vistok decode`: images and clips to .tok files and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from vistok.cli.media import check_video, write, write_clip
from vistok.cli.outputs import claim, output_names, overwrite_option, say
from vistok.cli.shared import (
    condition_of,
    frame_rate,
    open_tokenizer,
    read,
    settings,
    text_option,
    with_size,
    words_and_settings,
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
@overwrite_option
@one_line_errors
def encode(
    model: str,
    files: tuple[str, ...],
    out: str,
    length: int | None,
    text: str | None,
    overwrite: bool,
) -> None:
    """Encode images, or the beginnings of videos, into .tok files.

    They are center-cropped to the size of MODEL; of a video its first frames are taken. a/1.jpg
    becomes 1.tok; where two FILES would share a name, all keep their folders (a/1.tok, b/1.tok),
    and if need be their suffixes.
    """
    from vistok.storage.files import write_bytes

    targets = [Path(out) / name for name in output_names(files, ".tok")]
    tokenizer = open_tokenizer(model)
    condition = condition_of(tokenizer, text, "encoder")
    if length is not None:
        tokenizer.spec().check_length(length)
    claim(targets, overwrite)
    made_by = tokenizer.codes_sha256()
    for path, target in zip(files, targets, strict=True):
        tokens = tokenizer.encode(read([path], tokenizer), length, condition)
        if tokenizer.shape.is_clip:
            tokens = replace(tokens, fps=frame_rate(path))
        data = replace(tokens, made_by=made_by).to_bytes()[0]
        write_bytes(target, data)
        say(f"{path} -> {target} ({len(data)} bytes)")


@click.command()
@click.argument("model")
@click.argument("words", nargs=-1, required=True, metavar="FILE... [sampling.KEY=VALUE]...")
@click.option("--out", default=".", show_default=True, help="Folder for the images or clips.")
@click.option("--length", type=int, help="Decode only this prefix.")
@click.option("--seed", default=0, show_default=True, help="Seed of a decoder that samples.")
@click.option("--size", help="Pixels of a side, or HEIGHTxWIDTH, of a decoder of any size.")
@click.option(
    "--format",
    "suffix",
    type=click.Choice(["png", "gif", "mp4"]),
    help="Default: png for images, gif for clips; png of a clip is a row of its frames.",
)
@text_option
@overwrite_option
@one_line_errors
def decode(
    model: str,
    words: tuple[str, ...],
    out: str,
    length: int | None,
    seed: int,
    size: str | None,
    suffix: str | None,
    text: str | None,
    overwrite: bool,
) -> None:
    """Decode .tok files into images or clips.

    They must come from MODEL, or from one with its encoder and quantizer. sampling.KEY=VALUE
    changes the settings of a decoder that samples; `vistok info` prints them. Names of outputs as
    in `vistok encode`.
    """
    files, given = words_and_settings(words)
    if not files:
        raise InputError("no .tok file named; expected FILE... after the model")
    sampling = settings(given, "sampling")["sampling"]
    tokenizer = open_tokenizer(model)
    condition = with_size(tokenizer, condition_of(tokenizer, text, "decoder"), size)
    clip = tokenizer.shape.is_clip
    suffix = suffix or ("gif" if clip else "png")
    if suffix != "png" and not clip:
        raise InputError(f"--format {suffix}: {model} makes images; expected png")
    if suffix == "mp4":
        check_video(".mp4")
    chosen = tokenizer.settings(sampling)
    targets = [Path(out) / name for name in output_names(files, f".{suffix}")]
    made_by = tokenizer.codes_sha256()
    read_all = [_read_tokens(path, tokenizer, model, made_by) for path in files]
    if length is not None:
        read_all = [tokens.prefix(length) for tokens in read_all]
    claim(targets, overwrite)
    for path, target, tokens in zip(files, targets, read_all, strict=True):
        pixels = tokenizer.decode(tokens, condition, seed=seed, sampling=chosen)
        if suffix == "png":
            write(pixels, target)
        else:
            write_clip(pixels[0], target, _FPS if tokens.fps is None else tokens.fps)
        say(f"{path} -> {target}")


def _read_tokens(path: str, tokenizer: Any, model: str, made_by: str) -> Any:
    """The tokens of a .tok file; InputError if it is none, or of another tokenizer's."""
    from vistok.tokens import Tokens
    from vistok.tokens.packing import most_bytes

    spec = tokenizer.spec()
    with open_regular(path, "rb") as file:
        data = file.read(most_bytes(spec) + 1)
    if len(data) > most_bytes(spec):
        raise InputError(
            f"{path}: more than {most_bytes(spec)} bytes, the most that tokens of {model} take; "
            "expected a .tok file of this tokenizer"
        )
    try:
        tokens = Tokens.from_bytes([data], spec)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    if tokens.made_by is not None and not made_by.startswith(tokens.made_by):
        raise InputError(
            f"{path}: made by another tokenizer (weights {tokens.made_by}) than {model} (weights "
            f"{made_by[: len(tokens.made_by)]}); decode it with the one that encoded it"
        )
    return tokens
