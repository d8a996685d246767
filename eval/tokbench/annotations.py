"""Annotations of TokBench: which words and faces its images hold.

The folder, as published (Junfeng5/TokBench, CC BY 4.0, images unpacked from images.zip):

    annotations/text_NAME.json  [{file_name, annotations: [{rec, bbox, ratio}]}], NAME in TEXT_SETS
    annotations/face_meta.json  [{image_name, faces: [{kps, ratio}]}]
    images/text_data/NAME/      the images of that set
    images/face_data/wflw/      the images with faces

`rec` is the word, `bbox` its (x0, y0, x1, y1) and `kps` five points (x, y) of a face (eyes, nose,
corners of the mouth), in pixels of the image; `ratio` is the size relative to the image that groups
go by. Other keys (height, width, box, gt) are not read: the published scripts do not use them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from PIL import Image

from vistok.config.bounded import read_json
from vistok.core.errors import InputError, MissingFileError
from vistok.eval.resumable import digest

TextSet = Literal["ic13", "ic15", "tt", "textocr", "sroie", "cord", "infograph", "docvqa"]
TEXT_SETS: tuple[TextSet, ...] = get_args(TextSet)
Part = Literal["text", "faces"]
_FACES = "wflw"
_LARGEST = 2**28  # bytes of an annotation file
_BLOCK = 64  # words that the published script reads at a time


@dataclass(frozen=True)
class Word:
    """One word of an image."""

    text: str
    box: tuple[float, ...]  # (x0, y0, x1, y1)
    size: float  # of its letters, relative to the image
    block: int = 0  # which 64 words, of its set, the published script reads it among


@dataclass(frozen=True)
class Face:
    """One face of an image."""

    points: tuple[tuple[float, float], ...]  # five (x, y)
    size: float  # relative to the image


@dataclass(frozen=True)
class Scene:
    """One image and what it holds."""

    path: Path
    words: tuple[Word, ...] = ()
    faces: tuple[Face, ...] = ()

    def open(self) -> Image.Image:
        """The image in RGB, as it lies in the file (no rotation by its metadata)."""
        try:
            with Image.open(self.path) as image:
                return image.convert("RGB")
        except (OSError, ValueError, SyntaxError) as error:
            raise InputError(
                f"tokbench: {self.path}: not a readable image ({error}); fetch it anew"
            ) from None


@dataclass(frozen=True)
class Bench:
    """One part of the benchmark: its images, and a hash of what is asked of them."""

    part: Part
    scenes: tuple[Scene, ...]
    sets: tuple[str, ...]
    sha256: str
    name: str = "TokBench"
    preprocess: str = ""


def read_text_part(folder: str | Path, sets: Sequence[str], images: int | None = None) -> Bench:
    """The images with text of the sets, in the order of the annotations; those without are left
    out.

    Args:
        images: only the first so many of each set.
    Raises MissingFileError, InputError: one line.
    """
    root, scenes = _root(folder), []
    for number, name in enumerate(sets):
        words = 0
        file = root / "annotations" / f"text_{name}.json"
        for place, one in enumerate(_entries(file)[:images]):
            where = f"{file}: image {place}"
            found = []
            for entry in _list(one, "annotations", where):
                block = number * 2**32 + (words + len(found)) // _BLOCK
                found.append(_word(entry, where, block))
            words += len(found)
            path = root / "images" / "text_data" / name / _text(one, "file_name", where)
            if found:
                scenes.append(Scene(path, words=tuple(found)))
    return _bench("text", scenes, sets)


def read_face_part(folder: str | Path, images: int | None = None) -> Bench:
    """The images with faces; arguments and errors as in `read_text_part`."""
    root, scenes = _root(folder), []
    file = root / "annotations" / "face_meta.json"
    for place, one in enumerate(_entries(file)[:images]):
        where = f"{file}: image {place}"
        faces = tuple(_face(entry, where) for entry in _list(one, "faces", where))
        path = root / "images" / "face_data" / _FACES / _text(one, "image_name", where)
        if faces:
            scenes.append(Scene(path, faces=faces))
    return _bench("faces", scenes, (_FACES,))


def _root(folder: str | Path) -> Path:
    root = Path(folder)
    if not (root / "annotations").is_dir():
        raise MissingFileError(
            f"tokbench.path={folder}: no folder 'annotations' in it; expected TokBench with "
            "annotations/ and images/ (Junfeng5/TokBench, images.zip unpacked)"
        )
    return root


def _bench(part: Part, scenes: Sequence[Scene], sets: Sequence[str]) -> Bench:
    if not scenes:
        raise InputError(f"tokbench: no {part} in {', '.join(sets)}; expected one image or more")
    missing = [scene.path for scene in scenes if not scene.path.is_file()]
    if missing:
        raise MissingFileError(
            f"tokbench: {missing[0]}: no such image ({len(missing)} of {len(scenes)} are missing); "
            "unpack images.zip into the folder"
        )
    facts = [
        (one.path.parent.name, one.path.name, one.path.stat().st_size, one.words, one.faces)
        for one in scenes
    ]
    return Bench(part, tuple(scenes), tuple(sets), digest(facts))


def _entries(file: Path) -> list[Any]:
    if not file.is_file():
        raise MissingFileError(
            f"tokbench: {file}: no such file; fetch it from Junfeng5/TokBench, or leave its set "
            "out of tokbench.sets or tokbench.parts"
        )
    found = read_json(file, _LARGEST)
    if not isinstance(found, list):
        raise InputError(f"{file}: expected a list of images")
    return found


def _word(entry: Any, where: str, block: int) -> Word:
    text = _text(entry, "rec", where)
    box = tuple(_number(one, "bbox", where) for one in _list(entry, "bbox", where))
    if len(box) != 4 or not text:
        raise InputError(f"{where}: word '{text}', bbox {list(box)}: expected a word and 4 numbers")
    return Word(text, box, _number(entry.get("ratio"), "ratio", where), block)


def _face(entry: Any, where: str) -> Face:
    points = tuple(
        tuple(_number(one, "kps", where) for one in point) if isinstance(point, list) else ()
        for point in _list(entry, "kps", where)
    )
    if [len(point) for point in points] != [2] * 5:
        raise InputError(f"{where}: kps {list(points)}: expected five points (x, y)")
    return Face(points, _number(entry.get("ratio"), "ratio", where))


def _value(entry: Any, key: str, where: str) -> Any:
    if not isinstance(entry, dict) or key not in entry:
        raise InputError(f"{where}: no key '{key}'; expected TokBench's annotations")
    return entry[key]


def _text(entry: Any, key: str, where: str) -> str:
    value = _value(entry, key, where)
    if not isinstance(value, str):
        raise InputError(f"{where}: {key}={value!r}: expected a text")
    return value


def _list(entry: Any, key: str, where: str) -> list[Any]:
    value = _value(entry, key, where)
    if not isinstance(value, list):
        raise InputError(f"{where}: {key}={value!r}: expected a list")
    return value


def _number(value: Any, key: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{where}: {key}={value!r}: expected a number")
    return float(value)
