"""What is asked of reconstructions: that words are read, that faces are recognized."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vistok.eval.tokbench.annotations import Bench
from vistok.eval.tokbench.canvas import Place, Stored, as_stored, crop, off_square, on_square
from vistok.eval.tokbench.readers import FaceReader, TextReader
from vistok.eval.tokbench.scores import word_scores

Scored = tuple[float, tuple[float, ...]]  # a relative size, and the value of each measure


class TextTask:
    """Words of the benchmark and their reader.

    Args:
        limited: as published, 64 words of a set at a time: the reader is told the length of the
            longest of them, and the 64 are left out if it cannot write one of them.
    """

    names: ClassVar[tuple[str, ...]] = ("T-ACC", "T-NED")
    noun: ClassVar[str] = "words"

    def __init__(self, bench: Bench, reader: TextReader, limited: bool = True) -> None:
        self.bench, self.reader, self.limited = bench, reader, limited
        self._longest: dict[int, int] = {}
        self._unread: set[int] = set()
        letters = None if reader.letters is None else set(reader.letters)
        self.left_out = 0
        if not limited:
            return
        every = [word for scene in bench.scenes for word in scene.words]
        for word in every:
            self._longest[word.block] = max(self._longest.get(word.block, 0), len(word.text))
            if letters is not None and not letters.issuperset(word.text):
                self._unread.add(word.block)
        self.left_out = sum(word.block in self._unread for word in every)

    def known(self, number: int, original: Image.Image) -> None:
        """Nothing: words are known from the annotations."""

    def scores(
        self, numbers: Sequence[int], known: Sequence[Any], shown: Iterable[Image.Image]
    ) -> list[Scored]:
        """Size and (accuracy, 1 - edit distance) of each word on `shown`, the reconstructions of
        the images `numbers`."""
        words, crops = [], []
        for number, image in zip(numbers, shown, strict=True):
            pixels = np.asarray(image)
            for word in self.bench.scenes[number].words:
                if word.block not in self._unread:
                    words.append(word)
                    crops.append(crop(pixels, word.box).copy())  # lets go of the whole image
        if not words:
            return []
        read = self.reader(crops, [self._longest.get(word.block) for word in words])
        pairs = zip(words, read, strict=True)
        return [(word.size, word_scores(word.text, one)) for word, one in pairs]


class FaceTask:
    """Faces of the benchmark and the network that compares them."""

    names: ClassVar[tuple[str, ...]] = ("F-Sim",)
    noun: ClassVar[str] = "faces"
    left_out = 0

    def __init__(self, bench: Bench, reader: FaceReader) -> None:
        self.bench, self.reader = bench, reader

    def known(self, number: int, original: Image.Image) -> list[np.ndarray]:
        """The vector [D] of each face on the original of image `number`."""
        pixels = np.asarray(original)
        faces = self.bench.scenes[number].faces
        return [self.reader(pixels, np.array(face.points)) for face in faces]

    def scores(
        self, numbers: Sequence[int], known: Sequence[Any], shown: Iterable[Image.Image]
    ) -> list[Scored]:
        """Size and (cosine similarity,) of each face on `shown` and on the original, whose vectors
        are `known`."""
        return [
            (face.size, (cosine(before, after),))
            for number, vectors, image in zip(numbers, known, shown, strict=True)
            for face, before, after in zip(
                self.bench.scenes[number].faces, vectors, self.known(number, image), strict=True
            )
        ]


Task = TextTask | FaceTask


class Squares:
    """Some images of a task on squares of one side.

    Attributes:
        pixels: [B, 3, side, side] uint8.
    """

    def __init__(self, task: Task, numbers: Sequence[int], side: int, stored: Stored) -> None:
        self.task, self.numbers, self.stored = task, numbers, stored
        self.known: list[Any] = []
        self.places: list[Place] = []
        squares = []
        for number in numbers:
            original = task.bench.scenes[number].open()
            square, place = on_square(original, side)
            self.known.append(task.known(number, original))
            self.places.append(place)
            squares.append(torch.from_numpy(np.array(square)).permute(2, 0, 1))
        self.pixels = torch.stack(squares)

    def scores(self, decoded: Tensor) -> list[Scored]:
        """What the task finds on decoded squares [B, 3, side, side] uint8, each brought back to its
        image's own sides and through a file."""
        return self.task.scores(self.numbers, self.known, self._back(decoded.cpu()))

    def _back(self, decoded: Tensor) -> Iterator[Image.Image]:
        for number, place, pixels in zip(self.numbers, self.places, decoded, strict=True):
            square = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
            name = self.task.bench.scenes[number].path.name
            yield as_stored(off_square(square, place), name, self.stored)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of the angle between two vectors [D]; NaN if one is 0."""
    with np.errstate(invalid="ignore"):
        return float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))
