"""`vistok generate`: images or clips from a generator and the tokenizer of its tokens."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import click

from vistok.cli.completion import models
from vistok.cli.media import FPS, check_rate, image_format, moves, write, write_clips
from vistok.cli.outputs import claim, overwrite_option, say
from vistok.cli.shared import (
    condition_of,
    frame_rate,
    read,
    settings,
    with_size,
    words_and_settings,
)
from vistok.config.errors import InputError, one_line_errors

_TEXT = "A text to sample, or that the decoder reads; several, each with --count samples."
_CLIP = "A video whose first frames the samples continue; several, each with --count samples."
_RATE = (
    "Frames per second of clips.  [default: those of --frames, or at which the tokenizer's frames "
    f"make its period, else {FPS:g}]"
)
_MOST = 10_000  # samples of one grid, which are sampled together


@click.command()
@click.argument(
    "words",
    nargs=-1,
    required=True,
    metavar="GENERATOR [TOKENIZER] [KEY=VALUE]...",
    shell_complete=models,
)
@click.option("--class", "name", help="Class name or number; all of them if left out.")
@click.option("--count", default=8, show_default=True, help="Samples of each class and text.")
@click.option("--length", type=int, help="Stop after this many tokens.")
@click.option("--seed", default=0, show_default=True)
@click.option("--size", help="Pixels of a side, or HEIGHTxWIDTH, of a decoder of any size.")
@click.option(
    "--out",
    help="Image or, of clips, mp4, webp or gif; an image shows clips as rows of frames.  [default: "
    "generated.png, or generated.mp4 of clips]",
)
@click.option("--frames", "clips", multiple=True, type=click.Path(), help=_CLIP)
@click.option("--fps", type=float, help=_RATE)
@click.option("--text", "texts", multiple=True, help=_TEXT)
@click.option("--texts", "file", type=click.Path(), help="File of texts, one a line.")
@overwrite_option
@one_line_errors
def generate(
    words: tuple[str, ...],
    name: str | None,
    count: int,
    length: int | None,
    seed: int,
    size: str | None,
    out: str | None,
    clips: tuple[str, ...],
    fps: float | None,
    texts: tuple[str, ...],
    file: str | None,
    overwrite: bool,
) -> None:
    """Sample from GENERATOR and decode with TOKENIZER into one grid.

    TOKENIZER may be left out if the one whose tokens were learned is where it was; another one
    than that is refused. KEY=VALUE: sampling.temperature=0.9 and so on change the generator's
    settings, sampling.preset=unguided takes a named set of them, decoder_sampling.steps=10 changes
    those of a decoder that samples; `vistok info` prints all of them. text.path=FOLDER is where the
    text encoder lies that the generator learned with, if it is not where it was.

    \b
    Examples:
      vistok generate runs/mine/generator --class coffee --out coffee.png
      vistok generate runs/mine/generator --count 4 sampling.temperature=0.9
      vistok generate runs/clips/generator --frames clip.mp4 --out continued.mp4
    """
    import torch

    from vistok import pretrained
    from vistok.core.records import Condition
    from vistok.pretrained.owner import owner_of

    names, given = words_and_settings(words)
    if len(names) not in (1, 2):
        raise click.UsageError("name a generator, and perhaps its tokenizer")
    if count < 1:
        raise InputError(f"--count {count}: expected 1 or more")
    playing = out is not None and moves(out)
    if out is not None and not playing:
        image_format(out)
    changes = settings(given, "sampling", "decoder_sampling", "text")
    if file is not None:
        texts += _lines(file)
    model = pretrained.open(names[0], expect="generator")
    owner, remark = owner_of(names[0], model, names[1] if len(names) == 2 else None)
    if remark:
        say(remark)
    clip = owner.shape.is_clip
    if out is None:
        out, playing = ("generated.mp4", True) if clip else ("generated.png", False)
        moves(out)
    if playing and not clip:
        image_format(out)  # webp and gif are of images, too
    if fps is not None and not (playing and clip):
        raise InputError(f"--fps {fps:g}: {out} does not play; leave it out")
    check_rate(fps)
    chosen, decoding = (
        model.settings(changes["sampling"]),
        owner.settings(changes["decoder_sampling"]),
    )
    if length is not None:
        model.spec.check_length(length)
    if not model.num_classes and name is not None:
        raise InputError(f"--class {name}: this generator was trained without classes")
    picked = range(model.num_classes) if name is None else [_class(name, model)]
    asks = texts if model.reads_text else ()  # else they are the decoder's alone
    each = count * max(1, len(picked))
    if clips and asks:
        raise InputError("--frames with --text: give clips to continue, or texts, not both")
    total = each * max(1, len(asks), len(clips))
    if total > _MOST:
        raise InputError(
            f"--count {count}: {total} samples in one grid; expected at most {_MOST}: name one "
            "--class, fewer texts or clips, or a smaller count"
        )
    labels = torch.tensor(picked).repeat_interleave(count) if model.num_classes else None
    labels = labels if labels is None else labels.repeat(max(1, len(asks), len(clips)))
    index = torch.arange(total)
    rows = (index // each).tolist()  # of texts, or clips
    said = _decoder_texts(owner, texts, bool(asks))
    if said is not None:
        said = said.select(rows if len(said.text) > 1 else [0] * total)
    condition = Condition(label=labels)
    if asks:
        condition = replace(
            _features(model, owner, asks, changes["text"]).select(rows), label=labels
        )
    elif changes["text"]:
        raise InputError("text.KEY=VALUE without --text: leave it out, or say what to sample")
    known = _known_frames(model, owner, clips)
    if known is not None:
        condition = replace(condition, prefix=known.select(torch.tensor(rows)))
    said = with_size(owner, said, size)
    rate = None
    if playing and clip:
        rate = _rate(clips, owner) if fps is None else fps
        said = _timed(owner, said, rate, total)
    claim([out], overwrite)
    tokens = model.sample(condition, index=index, seed=seed, length=length, sampling=chosen)
    pixels = owner.decode(tokens, said, seed=seed, index=index, sampling=decoding)
    if rate is not None:
        say(f"{out}: {write_clips(pixels, out, count, rate)}")
    else:
        write(pixels, out, columns=count)
        say(out)


def _rate(clips: tuple[str, ...], owner: Any) -> float:
    """Frames per second of the videos that are continued; of none those that the tokenizer's tokens
    stand for, or the usual rate.

    InputError for videos of several rates, since all samples play in one file.
    """
    rates = [frame_rate(clip) for clip in clips] or [owner.encoder.anchor or FPS]
    if max(rates) > 1.01 * min(rates):
        said = " and ".join(f"{rate:g}" for rate in sorted({round(rate, 3) for rate in rates}))
        raise InputError(f"--frames of {said} frames per second: give one rate for all with --fps")
    return rates[0]


def _timed(owner: Any, condition: Any, rate: float, count: int) -> Any:
    """The decoder's condition of `count` clips at a frame rate, for one that makes any rate."""
    import torch

    from vistok import rates, transcoding
    from vistok.core.records import Condition

    if owner.encoder.anchor is None or not transcoding.transcodes(owner):
        return condition
    sides = (rates.frames_at(owner, rate), *owner.shape.image_size)
    fps = torch.full((count,), float(rate))
    return replace(condition or Condition(), fps=fps, sides=sides)


def _known_frames(model: Any, owner: Any, clips: tuple[str, ...]) -> Any:
    """Tokens of the first frames of videos, for a generator that continues them; None for others.

    InputError for videos that nothing reads, or none that are read.
    """
    import torch

    from vistok.core.records import Condition
    from vistok.layers.frames import hold

    first = model.config.condition.first_frames
    if first is None:
        if clips:
            raise InputError(
                f"--frames {clips[0]}: this generator continues no clips; leave it out, or train "
                "one with condition.first_frames"
            )
        return None
    if not clips:
        raise InputError(
            f"this generator continues clips: give one of {first} frames or more, --frames clip.mp4"
        )
    known = read(clips, owner, frames=first)
    held = hold(known, first, owner.shape.frames).to(next(owner.parameters()).device)
    if not owner.reads_fps:
        return owner.encode(held)
    rates = torch.tensor([frame_rate(clip) for clip in clips])
    return owner.encode(held, condition=Condition(fps=rates))


def _lines(file: str) -> tuple[str, ...]:
    """The texts of a file, one a line; blank lines are none."""
    from pathlib import Path

    from vistok.data.base import text_of

    if not Path(file).is_file():
        raise InputError(f"--texts {file}: no such file; expected one of texts, one a line")
    found = tuple(line.strip() for line in text_of(Path(file)).splitlines() if line.strip())
    if not found:
        raise InputError(f"--texts {file}: no text in it; expected one a line")
    return found


def _decoder_texts(owner: Any, texts: tuple[str, ...], sampled: bool) -> Any:
    """Condition of the decoder: one row, or one for each text; None if it is given none.

    Args:
        sampled: the generator reads these texts, so that the decoder need not.
    """
    if sampled and "decoder" not in owner.config.reading:
        return None
    if len(texts) > 1 and sampled:
        return owner.condition(texts)
    if len(texts) > 1:
        raise InputError(
            f"--text: {len(texts)} texts, and this generator reads none; give the decoder one"
        )
    return condition_of(owner, texts[0] if texts else None, "decoder")


def _features(model: Any, owner: Any, texts: tuple[str, ...], changes: Any) -> Any:
    """The condition of each text for a generator, by the encoder that it learned with; by the
    tokenizer's if it does not say which that was."""
    from vistok.config import validate
    from vistok.frozen.text import TextEncoder, TextEncoderConfig

    if not (changes or model.text_record) and owner.config.text is not None:
        return model.trimmed(owner.condition(texts))
    if changes:
        tree = {**model.text_record.get("config", {}), **changes}
        model.use_text_encoder(TextEncoder(validate(TextEncoderConfig, tree, "text")))
    return model.text_condition(texts)


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
