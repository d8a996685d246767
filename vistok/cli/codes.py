"""`vistok encode` and `vistok decode`: images and clips to .vtk files and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from vistok.cli.frequencies import codec_of
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

_SUFFIX = ".vtk"
_FPS = 8.0  # of clips whose tokens do not say

frequencies_option = click.option(
    "--frequencies",
    type=click.Path(),
    help="Frequency table of the range coder; default: the one beside MODEL's weights, if any.",
)


@click.command()
@click.argument("model")
@click.argument("files", nargs=-1, required=True, type=click.Path())
@click.option(
    "--out", default=".", show_default=True, help="Folder for the .vtk files; of one file its name."
)
@click.option("--length", type=int, help="Keep a prefix of this many (`vistok info`: lengths).")
@click.option("--target-psnr", type=float, help="Keep the shortest prefix of this PSNR in dB.")
@click.option(
    "--max-perceptual",
    type=float,
    help="Keep the shortest prefix of at most this perceptual distance (vistok-cnn).",
)
@click.option("--max-bytes", type=int, help="Never write a larger file; fill it if nothing else.")
@click.option("--seed", default=0, show_default=True, help="Seed of a decoder that samples.")
@frequencies_option
@text_option
@overwrite_option
@one_line_errors
def encode(
    model: str,
    files: tuple[str, ...],
    out: str,
    length: int | None,
    target_psnr: float | None,
    max_perceptual: float | None,
    max_bytes: int | None,
    seed: int,
    frequencies: str | None,
    text: str | None,
    overwrite: bool,
) -> None:
    """Encode images, or the beginnings of videos, into .vtk files.

    They are center-cropped to the size of MODEL; of a video its first frames are taken. a/1.jpg
    becomes 1.vtk; where two FILES would share a name, all keep their folders (a/1.vtk, b/1.vtk),
    and if need be their suffixes. With --target-psnr or --max-perceptual each image gets the
    length it needs; an image that does not reach them is written at the longest prefix that
    --max-bytes allows, and named.
    """
    from vistok.storage.files import write_bytes

    goals = {
        "target_psnr": target_psnr,
        "max_perceptual": max_perceptual,
        "max_bytes": max_bytes,
    }
    goals = {name: value for name, value in goals.items() if value is not None}
    if goals and length is not None:
        names = " and ".join(f"--{name.replace('_', '-')}" for name in goals)
        raise InputError(f"--length {length} with {names}: give a length, or what it must reach")
    targets = _targets(out, files, _SUFFIX)
    tokenizer = open_tokenizer(model)
    decodes = bool({"target_psnr", "max_perceptual"} & set(goals))
    condition = condition_of(tokenizer, text, "encoder", *(["decoder"] if decodes else []))
    if length is not None:
        tokenizer.spec().check_length(length)
    codec = codec_of(tokenizer, model, frequencies)
    goal = _goal(tokenizer, goals, codec, seed)
    claim(targets, overwrite)
    for path, target in zip(files, targets, strict=True):
        tokens, about = _encoded(tokenizer, path, length, goal, condition)
        if tokenizer.shape.is_clip:
            tokens = replace(tokens, fps=frame_rate(path))
        (data,) = codec.write(tokens)
        write_bytes(target, data)
        say(f"{path} -> {target} ({len(data)} bytes{about})")


def _goal(tokenizer: Any, goals: dict[str, Any], codec: Any, seed: int) -> Any:
    """What the length must reach, checked; None if nothing is asked for."""
    if not goals:
        return None
    from vistok.adaptive import Goal
    from vistok.frozen import perceptual_network

    if "max_perceptual" in goals:  # once for all files
        goals = {**goals, "perceptual": perceptual_network("vistok-cnn")}
    goal = Goal(codec=codec, seed=seed, **goals)
    goal.check(tokenizer.spec())
    return goal


def _encoded(
    tokenizer: Any, path: str, length: int | None, goal: Any, condition: Any
) -> tuple[Any, str]:
    """(the tokens of a file, what to say of a length that was searched for)."""
    pixels = read([path], tokenizer)
    if goal is None:
        return tokenizer.encode(pixels, length, condition), ""
    from vistok.adaptive import choose, told_miss

    if tokenizer.shape.is_clip:  # the header says it, and its bytes count
        goal = replace(goal, fps=frame_rate(path))
    try:
        found = choose(tokenizer, pixels, goal, condition)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if not bool(found.met.all()):
        click.echo(f"{path}: {told_miss(found, goal, 0)}", err=True)
    about = f", length {int(found.lengths[0])}"
    if found.psnr is not None:
        about += f", {float(found.psnr[0]):.2f} dB"
    if found.perceptual is not None:
        about += f", perceptual distance {float(found.perceptual[0]):.4f}"
    return found.tokens, about


@click.command()
@click.argument("model")
@click.argument("words", nargs=-1, required=True, metavar="FILE... [sampling.KEY=VALUE]...")
@click.option(
    "--out",
    default=".",
    show_default=True,
    help="Folder for the images or clips; of one file its name.",
)
@click.option("--length", type=int, help="Decode only this prefix.")
@click.option("--seed", default=0, show_default=True, help="Seed of a decoder that samples.")
@click.option("--size", help="Pixels of a side, or HEIGHTxWIDTH, of a decoder of any size.")
@click.option(
    "--format",
    "suffix",
    type=click.Choice(["png", "gif", "mp4"]),
    help="Default: png for images, gif for clips; png of a clip is a row of its frames.",
)
@frequencies_option
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
    frequencies: str | None,
    text: str | None,
    overwrite: bool,
) -> None:
    """Decode .vtk files into images or clips.

    They must come from MODEL, or from one with its encoder and quantizer. sampling.KEY=VALUE
    changes the settings of a decoder that samples; `vistok info` prints them. Names of outputs as
    in `vistok encode`.
    """
    files, given = words_and_settings(words)
    if not files:
        raise InputError(f"no {_SUFFIX} file named; expected FILE... after the model")
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
    targets = _targets(out, files, f".{suffix}")
    codec = codec_of(tokenizer, model, frequencies, write=False)
    read_all = [_read_tokens(path, codec) for path in files]
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


def _targets(out: str, files: Sequence[str], suffix: str) -> list[Path]:
    """The output files: `out` itself where it ends like one, else names in that folder."""
    if Path(out).suffix == suffix and not Path(out).is_dir():
        if len(files) > 1:
            raise InputError(f"--out {out}: one file for {len(files)}; expected a folder")
        return [Path(out)]
    return [Path(out) / name for name in output_names(files, suffix)]


def _read_tokens(path: str, codec: Any) -> Any:
    """The tokens of a .vtk file; InputError if it is none, or of another tokenizer's."""
    with open_regular(path, "rb") as file:
        data = file.read(codec.most + 1)
    try:
        return codec.read(data)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
