"""`vistok encode` and `vistok decode`: images and clips to .vtk files and back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from vistok.cli.completion import model_then_files
from vistok.cli.frequencies import codec_of
from vistok.cli.inputs import Source, find_sources
from vistok.cli.outputs import claim, output_names, overwrite_option, say
from vistok.cli.running import batch_of, model_and_files, place_on, running_options
from vistok.cli.shared import (
    condition_of,
    open_tokenizer,
    settings,
    text_option,
    with_size,
    words_and_settings,
)
from vistok.cli.work import left_out_text
from vistok.config.errors import InputError, one_line_errors

_SUFFIX = ".vtk"
_FOLDER = ".frames"  # ends the name of a folder of frames
_FORMATS = {  # of `decode`: the suffixes of its files, the one that it gives first
    "png": (".png",),
    "jpeg": (".jpg", ".jpeg"),
    "webp": (".webp",),
    "gif": (".gif",),
    "mp4": (".mp4",),
    "frames": (_FOLDER,),
}
_MOVING = ("gif", "mp4", "frames")  # and webp, of clips
_IMAGES = (".bmp", ".tif", ".tiff")
_ENDINGS = {_SUFFIX, *_IMAGES, *(one for known in _FORMATS.values() for one in known)}

frequencies_option = click.option(
    "--frequencies",
    type=click.Path(),
    help="Frequency table of the range coder; default: the one beside MODEL's weights, if any.",
)
skip_option = click.option(
    "--skip-existing", is_flag=True, help="Leave out files whose output exists: resume."
)


@click.command()
@click.argument(
    "words",
    nargs=-1,
    required=True,
    metavar="[MODEL] FILE|FOLDER|PATTERN...",
    shell_complete=model_then_files,
)
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
@click.option(
    "--resize",
    type=click.Choice(["crop", "stretch", "pad"]),
    help="To MODEL's size: cut the center out (default), give up the proportions, or add white.",
)
@click.option(
    "--tile", is_flag=True, help="Keep the size of images: overlapping tiles, not a cropped one."
)
@click.option(
    "--overlap",
    type=click.IntRange(min=0),
    help="Encode videos to their end, in windows of MODEL's frames that share this many.",
)
@click.option(
    "--whole",
    is_flag=True,
    help="Encode videos to their end: a causal MODEL in one stream (unless there is an overlap), "
    "others in windows.",
)
@click.option(
    "--pad",
    type=click.Choice(["repeat", "reflect"]),
    help="Fill the last window of whole videos; default: those that do not fill it are refused.",
)
@click.option(
    "--names/--no-names",
    default=None,
    help="Keep the path below the folder inside each .vtk file. Default: for folders and patterns, "
    "unless --max-bytes.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of a decoder that samples.")
@running_options
@frequencies_option
@text_option
@skip_option
@overwrite_option
@one_line_errors
def encode(
    words: tuple[str, ...],
    out: str,
    length: int | None,
    target_psnr: float | None,
    max_perceptual: float | None,
    max_bytes: int | None,
    resize: str | None,
    tile: bool,
    overlap: int | None,
    whole: bool,
    pad: str | None,
    names: bool | None,
    seed: int,
    named: str | None,
    batch: int | None,
    workers: int,
    device: str,
    precision: str,
    frequencies: str | None,
    text: str | None,
    skip_existing: bool,
    overwrite: bool,
) -> None:
    """Encode images, or the beginnings of videos, into .vtk files.

    FILES are files, folders with all their sub-folders, and quoted patterns ('a/**/*.jpg').
    Images are center-cropped to the size of MODEL, or keep theirs with --tile; of a video its first
    frames are taken, or all with --whole, --overlap or --pad. A causal MODEL of videos takes images
    too, as clips of one frame. photos/a/1.jpg of the folder photos
    becomes a/1.vtk. Of files that you name a/1.jpg becomes 1.vtk; where two would share a name, all
    keep their folders (a/1.vtk, b/1.vtk), and if need be their suffixes.
    A file that cannot be read is named, the others go on.

    With --target-psnr or --max-perceptual each image gets the length it needs; an image that does
    not reach them is written at the longest prefix that --max-bytes allows, and named.

    \b
    vistok encode --model vistok-128 photos/ --out codes
    """
    from vistok.cli.encoding import Encoding, check_tiles, check_windows, goal_of, say_packed

    goals = {
        "target_psnr": target_psnr,
        "max_perceptual": max_perceptual,
        "max_bytes": max_bytes,
    }
    goals = {name: value for name, value in goals.items() if value is not None}
    if goals and length is not None:
        given = " and ".join(f"--{name.replace('_', '-')}" for name in goals)
        raise InputError(f"--length {length} with {given}: give a length, or what it must reach")
    if names and max_bytes is not None:
        raise InputError(f"--names with --max-bytes {max_bytes}: names take bytes; give one")
    model, files = model_and_files(words, named, "encode", _endings(False))
    tokenizer = open_tokenizer(model)
    clip = tokenizer.shape.is_clip
    endings = _endings(clip)
    if tokenizer.streams:  # an image is a clip of one frame
        endings = tuple(dict.fromkeys((*endings, *_endings(False))))
    sources = find_sources(files, endings, "video" if clip else "image")
    if tile and resize is not None:
        raise InputError(f"--tile with --resize {resize}: tiles keep the size; give one of both")
    if tile:
        check_tiles(tokenizer, goals)
    whole = whole or not (overlap is None and pad is None and tokenizer.config.chunks is None)
    if whole:
        check_windows(tokenizer, goals, overlap, length, frequencies)
    targets = _targets(out, sources.files, (_SUFFIX,), sources.listed)
    decodes = bool({"target_psnr", "max_perceptual"} & set(goals))
    condition = condition_of(tokenizer, text, "encoder", *(["decoder"] if decodes else []))
    if length is not None:
        tokenizer.check_length(length)
    codec = codec_of(tokenizer, model, frequencies)
    if whole:
        say_packed(tokenizer, codec, overlap)
    goal = goal_of(tokenizer, goals, codec, seed)
    left, targets = _left(sources.files, targets, skip_existing)
    claim(targets, overwrite)
    if sources.left_out:
        say(left_out_text(sources.left_out))
    Encoding(
        place_on(tokenizer, device),
        codec,
        condition,
        length,
        goal,
        resize=resize or "crop",
        tile=tile,
        whole=whole,
        overlap=overlap,
        pad=pad,
        names=sources.listed and max_bytes is None if names is None else names,
        batch=batch_of(tokenizer, batch),
        workers=workers,
        precision=precision,
    ).run(left, targets)


@click.command()
@click.argument(
    "words",
    nargs=-1,
    required=True,
    metavar="[MODEL] FILE|FOLDER|PATTERN... [sampling.KEY=VALUE]",
    shell_complete=model_then_files,
)
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
    "form",
    type=click.Choice(list(_FORMATS)),
    help="Default: by --out, else png for images, gif for clips. Of a clip, png is a row of "
    "frames, webp moves, and frames is a folder NAME.frames of numbered png files.",
)
@click.option(
    "--fps",
    type=float,
    help="Frames per second of clips; default: theirs. A MODEL of any frame rate decodes at it, of "
    "others clips play faster or slower.",
)
@click.option("--quality", type=click.IntRange(1, 100), help="Of jpeg and webp; default: 95.")
@running_options
@frequencies_option
@text_option
@skip_option
@overwrite_option
@one_line_errors
def decode(
    words: tuple[str, ...],
    out: str,
    length: int | None,
    seed: int,
    size: str | None,
    form: str | None,
    fps: float | None,
    quality: int | None,
    named: str | None,
    batch: int | None,
    workers: int,
    device: str,
    precision: str,
    frequencies: str | None,
    text: str | None,
    skip_existing: bool,
    overwrite: bool,
) -> None:
    """Decode .vtk files into images or clips.

    They must come from MODEL, or from one with its encoder and quantizer. Tiled images get their
    own size back. Folders, names of outputs and files that fail as in `vistok encode`.
    sampling.KEY=VALUE changes the settings of a decoder that samples; `vistok info` prints them.

    \b
    vistok decode --model vistok-128 codes/ --out back --format webp
    """
    from vistok import transcoding
    from vistok.cli.decoding import Decoding
    from vistok.cli.media import FIRST_FRAME, check_rate, check_video

    files, given = words_and_settings(words)
    if named is None and len(files) == 1 and not files[0].endswith(_SUFFIX):
        raise InputError(f"no {_SUFFIX} file named; expected FILE... after the model")
    model, files = model_and_files(files, named, "decode", (_SUFFIX,))
    sampling = settings(given, "sampling")["sampling"]
    tokenizer = open_tokenizer(model)
    condition = with_size(tokenizer, condition_of(tokenizer, text, "decoder"), size)
    clip = tokenizer.shape.is_clip
    sources = find_sources(files, (_SUFFIX,), f"{_SUFFIX} file")
    form = form or _form_of(out, len(sources.files)) or ("gif" if clip else "png")
    if form in _MOVING and not clip:
        raise InputError(f"--format {form}: {model} makes images; expected png, jpeg or webp")
    if form == "mp4":
        check_video(".mp4")
    if quality is not None and form not in ("jpeg", "webp"):
        raise InputError(f"--quality {quality}: {form} has none; give --format jpeg or webp")
    moving = clip and (form in _MOVING or form == "webp")
    if fps is not None and not moving:
        raise InputError(f"--fps {fps:g}: {form} does not move; expected --format mp4, gif or webp")
    check_rate(fps)
    chosen = tokenizer.settings(sampling)
    transcode = fps is not None and transcoding.transcodes(tokenizer)
    targets = _targets(out, sources.files, _FORMATS[form], sources.listed)
    if form == "frames":
        targets = [target / FIRST_FRAME for target in targets]
    codec = codec_of(tokenizer, model, frequencies, write=False)
    left, targets = _left(sources.files, targets, skip_existing)
    if sources.left_out:
        say(left_out_text(sources.left_out))
    Decoding(
        place_on(tokenizer, device),
        codec,
        condition,
        size is not None,
        length,
        seed,
        chosen,
        moving=moving,
        fps=fps,
        transcode=transcode,
        quality=95 if quality is None else quality,
        batch=batch_of(tokenizer, batch),
        workers=workers,
        precision=precision,
    ).run(left, targets, lambda: claim(targets, overwrite))


def _endings(clip: bool) -> tuple[str, ...]:
    from vistok.data.kinds import folder, video

    return video.ENDINGS if clip else folder.ENDINGS


def _form_of(out: str, count: int) -> str | None:
    """The format that the name of the only output file says."""
    suffix = Path(out).suffix.lower()
    if count != 1 or (Path(out).is_dir() and suffix != _FOLDER):
        return None
    return next((form for form, known in _FORMATS.items() if suffix in known), None)


def _targets(
    out: str, files: Sequence[Source], suffixes: Sequence[str], listed: bool
) -> list[Path]:
    """The output files: `out` itself where it ends like one, else names in that folder."""
    suffix = Path(out).suffix.lower()
    if suffix in suffixes and (suffix == _FOLDER or not Path(out).is_dir()):
        if len(files) > 1:
            raise InputError(f"--out {out}: one file for {len(files)}; expected a folder")
        return [Path(out)]
    if suffix in _ENDINGS and not Path(out).exists():
        raise InputError(f"--out {out}: expected a folder, or a name that ends in {suffixes[0]}")
    below = [one.below for one in files] if listed else None
    names = output_names([one.path for one in files], suffixes[0], below)
    return [Path(out) / name for name in names]


def _left(
    files: Sequence[Source], targets: Sequence[Path], skip: bool
) -> tuple[list[Source], list[Path]]:
    """The files that are still to be done, and their outputs; says how many are left out."""
    pairs: list[tuple[Any, Path]] = list(zip(files, targets, strict=True))
    if skip:
        pairs = [pair for pair in pairs if not os.path.lexists(pair[1])]
        if len(pairs) < len(files):
            say(f"left out: {len(files) - len(pairs):,} files whose output exists")
    return [one for one, _ in pairs], [target for _, target in pairs]
