"""Helpers of several commands: models, settings, images and clips in and out, texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from vistok.config.errors import ConfigError, InputError
from vistok.config.overrides import parse, split

text_option = click.option("--text", help="What the images show, for a tokenizer that reads text.")


def settings(words: Sequence[str], *groups: str) -> dict[str, dict[str, Any] | None]:
    """["sampling.steps=10"] -> {"sampling": {"steps": 10}}; None for a group without settings.

    Raises ConfigError for a word that belongs to none of the groups.
    """
    for word in words:
        group = split(word)[0][0]
        if group not in groups:
            expected = " or ".join(f"{name}.KEY=VALUE" for name in groups)
            raise ConfigError(f"'{word}': unknown setting; expected {expected}")
    tree = parse(words)
    for name, value in tree.items():
        if not isinstance(value, dict):
            raise ConfigError(f"{name}={value}: expected {name}.KEY=VALUE")
    return {name: tree.get(name) for name in groups}


def words_and_settings(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """(names and files, KEY=VALUE words); a file whose name holds a = is a file."""
    names = [word for word in words if "=" not in word or Path(word).exists()]
    return names, [word for word in words if word not in names]


def open_tokenizer(name: str) -> Any:
    from vistok import pretrained

    return pretrained.open(name, expect="tokenizer")


def condition_of(tokenizer: Any, text: str | None, *parts: str) -> Any:
    """The condition of one image for these parts (none named: all); None if they are given none.

    InputError if they need a text, or there is one that they would not look at.
    """
    reading = tokenizer.config.reading
    hows = [how for part, how in reading.items() if part in parts or not parts]
    if text is None:
        if all(how.optional for how in hows):
            return None
        raise InputError(
            "this tokenizer reads text: say what the image shows, --text 'A photo of a cat.' "
            "(--text '' for none)"
        )
    if not hows:
        where = f"; its {' and '.join(reading)} does" if reading else ""
        raise InputError(
            f"--text: {' and '.join(parts) or 'this tokenizer'} reads no text{where}: leave it out"
        )
    return tokenizer.condition([text])


def with_size(tokenizer: Any, condition: Any, size: str | None) -> Any:
    """The condition that also asks for images of a size: "512", or "384x512", height first.

    InputError for other texts, and if the tokenizer makes no such images.
    """
    if size is None:
        return condition
    from vistok.core.records import Condition

    sides = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", size)
    if sides is None or not all(int(side) for side in sides.groups(sides[1])):
        raise InputError(f"--size {size}: expected pixels of a side, or HEIGHTxWIDTH: 384x512")
    asked = tuple(int(side) for side in sides.groups(sides[1]))
    condition = replace(condition or Condition(), sides=asked)
    tokenizer.decoder.check_sides(asked, tokenizer.shape, tokenizer.output_space.shape)
    return condition


def read(
    paths: Sequence[str], tokenizer: Any, resize: str = "crop", frames: int | None = None
) -> Any:
    """Images or clips as the tokenizer takes them: [B, 3, *sides] in 0..1.

    Of a video the first frames are taken: as many as the tokenizer has, or as make its period.

    Args:
        frames: of a video, where it is not as many as the tokenizer has.
        resize: crop, stretch or pad, as in `Tokenizer.preprocess`.
    """
    import torch

    from vistok.data.decode.images import to_tensor
    from vistok.data.preprocessing import fit
    from vistok.rates import frames_at

    shape = tokenizer.shape
    stills = frames is None and paths and all(takes_still(tokenizer, path) for path in paths)
    if not shape.is_clip or stills:
        return tokenizer.preprocess(list(paths), resize)
    from PIL import Image

    fitted = lambda frame: to_tensor(fit(Image.fromarray(frame), shape.image_size, resize))
    period = tokenizer.encoder.anchor is not None
    counts = [frames_at(tokenizer, frame_rate(path) if period else None) for path in paths]
    if len(set(counts)) > 1:
        raise InputError(
            f"{', '.join(paths)}: clips of {', '.join(map(str, counts))} frames by their frame "
            "rates; expected one rate"
        )
    uses = [f"this tokenizer takes clips of {count}" for count in counts]
    if frames is not None:
        counts, uses = [frames] * len(paths), [f"the first {frames} are continued"] * len(paths)
    clips = map(_frames, paths, counts, uses)
    pixels = [torch.stack([fitted(frame) for frame in clip], dim=1) for clip in clips]
    return torch.stack(pixels).float() / 255


def takes_still(tokenizer: Any, path: str) -> bool:
    """True for an image that the tokenizer, a causal one, takes as a clip of one frame."""
    from vistok.data.preprocessing import is_still

    return tokenizer.streams and is_still(path)


def frame_rate(path: str) -> float:
    """Mean frames per second of a video."""
    from vistok.data.decode.video import clips

    return clips.probe(path).fps


def _frames(path: str, count: int, use: str) -> list[Any]:
    from vistok.data.decode.video import clips

    frames, remarks = clips.beginning(path, count)
    if len(frames) < count:
        raise InputError(f"{path}: {len(frames)} frames; {use}: give a longer video")
    if remarks:
        click.echo(f"{path}: {remarks}", err=True)
    return frames


def images_only(tokenizer: Any, command: str) -> None:
    """InputError for a tokenizer of clips, where a command is made for images."""
    if tokenizer.shape.is_clip:
        raise InputError(
            f"{command}: this tokenizer takes clips of {tokenizer.shape.frames} frames; edits are "
            "for images only"
        )
