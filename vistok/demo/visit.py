"""What the page remembers of one visitor: two images and their encodings, in memory only."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vistok.core.errors import InputError
from vistok.demo.encoded import Encoded, encode
from vistok.demo.images import opened
from vistok.demo.lengths import length_at, nearest_step, steps_of
from vistok.demo.models import Model, Models

if TYPE_CHECKING:
    from PIL.Image import Image

FIRST, SECOND = "first", "second"  # the image, and the one that tokens are mixed with
_ENCODED = 16  # encodings that a visit holds


class Visit:
    """One visitor's images. Encodings are made when they are asked for, and kept."""

    def __init__(self) -> None:
        self._images: dict[str, Image] = {}
        self._encoded: dict[tuple[str, str], Encoded] = {}
        self._lock = threading.Lock()  # a visitor's clicks may overtake each other

    def __deepcopy__(self, memo: object) -> Visit:
        """A visit of its own: gradio copies the state that a page starts with."""
        return Visit()

    def take(self, which: str, path: str | Path | None) -> None:
        """Read an image in place of the one before; None takes it away. Errors of `opened`."""
        image = None if path is None else opened(path)
        with self._lock:
            self._images.pop(which, None)
            self._encoded = {key: one for key, one in self._encoded.items() if key[0] != which}
            if image is not None:
                self._images[which] = image

    def has(self, which: str) -> bool:
        return which in self._images

    def encoded(self, which: str, model: Model) -> Encoded:
        """An image as a model encodes it; InputError if there is no such image yet."""
        with self._lock:
            if which not in self._images:
                raise InputError(f"choose the {which} image")
            key = (which, model.name)
            if key not in self._encoded:
                while len(self._encoded) >= _ENCODED:
                    self._encoded.pop(next(iter(self._encoded)))
                self._encoded[key] = encode(model, self._images[which])
            return self._encoded[key]


class Dial:
    """The slider's steps for the models that are chosen."""

    def __init__(self, models: Models, names: Sequence[str]) -> None:
        self._specs = {name: models[name].spec for name in names}
        self.steps = steps_of(list(self._specs.values())) or (0,)

    def length(self, name: str, step: int | float) -> int:
        """The length of a model at a step of the slider."""
        place = min(max(int(step), 0), len(self.steps) - 1)
        return length_at(self._specs[name], self.steps[place])

    def step_near(self, bits: int | None) -> int:
        return nearest_step(self.steps, bits)
