"""Readers of text and of faces, by name: packages and weights of your own machine.

A reader is made only when it is asked for, and nothing is ever downloaded. An adapter is one class
with the attributes below, and its line in TEXT_READERS or FACE_READERS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from vistok.config.names import nearest
from vistok.core.errors import InputError
from vistok.frozen.files import MissingWeights, Source

PARSEQ = "doctr-parseq"
ANTELOPE = "antelopev2"


class Reader(Protocol):
    """What stands in a row about whoever read."""

    name: str
    sha256: str  # of the weights
    preprocess: str
    note: str  # said beside its numbers, such as terms of the weights; "" for nothing


class TextReader(Reader, Protocol):
    """Crops of words -> words."""

    letters: str | None
    """All letters that it can write; None for any."""

    def __call__(self, crops: Sequence[np.ndarray], longest: Sequence[int | None]) -> list[str]:
        """The word on each crop [h, w, 3] uint8.

        Args:
            longest: letters of the longest word that may be there; a reader may use it to stop
                (docTR's writes one letter more). None: unknown.
        """
        ...


class FaceReader(Reader, Protocol):
    """A face in an image -> a vector."""

    def __call__(self, pixels: np.ndarray, points: np.ndarray) -> np.ndarray:
        """[D] of the face whose eyes, nose and corners of the mouth lie at `points` [5, 2] (x, y)
        of the image [H, W, 3] uint8."""
        ...


def _parseq(weights: str | Path | None, device: torch.device) -> TextReader:
    from vistok.eval.tokbench.parseq import PARSeq

    return PARSeq(weights, device)


def _antelope(weights: str | Path | None, device: torch.device) -> FaceReader:
    from vistok.eval.tokbench.arcface import ArcFace

    return ArcFace(weights, device)


Make = Callable[[str | Path | None, torch.device], Reader]
TEXT_READERS: dict[str, Make] = {PARSEQ: _parseq}
FACE_READERS: dict[str, Make] = {ANTELOPE: _antelope}


def check_reader(name: str, readers: dict[str, Make]) -> str:
    """The name; InputError for one that `readers` does not have."""
    if name not in readers:
        raise InputError(f"unknown reader '{name}'; {nearest(name, tuple(readers))}")
    return name


def find(source: Source, weights: str | Path | None, key: str) -> Path:
    """The weight file of a reader; MissingWeights names the config's `key` for its path."""
    try:
        return source.find(weights)
    except MissingWeights as error:
        raise MissingWeights(str(error).replace("(--weights)", f"({key})")) from None
