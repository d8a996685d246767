"""What every data set is: samples by index, class names, and a record of what was read.

A data part is `@register("data", XConfig)` on a class with `__init__(config)` and
`open(split) -> Dataset`. A data set is picklable (workers may be spawned) and its samples depend on
(index, epoch, seed) alone: never on who asks, in which order, or on a global generator.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import Tensor

from vistok.config.errors import UserError
from vistok.tokens import TokenSpec

Split = Literal["train", "val"]
UNLABELLED = -1


class DataError(UserError, ValueError):
    """A data set that cannot be used; the message is one line: thing, found, expected, remedy."""


class BadSample(UserError):
    """One sample that cannot be used: its name and the reason, on one line."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)  # both in args, so that it can be pickled
        self.name, self.reason = name, one_line(reason)

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True)
class Sample:
    """One image, one clip or one cached token sequence."""

    index: int
    pixels: Tensor | None  # [3, H, W] uint8, a clip [3, T, H, W]
    label: int = UNLABELLED  # -1 = unlabeled
    name: str = ""
    tokens: Tensor | None = None  # [L, F] of type `Tokens.dtype(spec)`; [L, dim] if continuous
    fps: float | None = None  # frames per second of a clip's pixels
    text: str | None = None  # what the image shows, where the data set says so (`texts`)


class Raw(NamedTuple):
    """A sample as it is stored: what a scan looks at before any decoder does."""

    name: str
    data: bytes  # of the encoded file
    label: int = UNLABELLED
    trouble: str = ""  # what is wrong with the label, if anything
    picture: bool = True  # whether `images.decode` is the door of these bytes; not so for clips


class Dataset:
    """Base of the data sets; a subclass gives `__len__`, `sample` and `record`.

    Where each sample is an encoded file, `raw` gives its bytes.
    """

    classes: tuple[str, ...] = ()
    """Class names by label; () = the data set has no labels."""
    size: tuple[int, int] | None = None
    """(H, W) of every sample's pixels."""
    frames: int | None = None
    """T of every sample's pixels; None = images."""
    flip: bool = False
    """Whether training mirrors half of the samples (done on the device, by the loader's draws)."""
    spec: TokenSpec | None = None
    """Of the tokens, if the samples are cached tokens."""
    texts: bool = False
    """Whether every sample has a text."""
    caption: Any = None
    """`captions.Caption`: class -> text, where texts are made so."""

    def __len__(self) -> int:
        raise NotImplementedError

    def sample(self, index: int, epoch: int = 0, seed: int = 0) -> Sample:
        """Sample `index` as epoch `epoch` of a run with `seed` sees it; BadSample if unusable."""
        raise NotImplementedError

    def raw(self, index: int) -> Raw:
        """The encoded file of a sample; BadSample if there is none to be had.

        NotImplementedError: samples of this kind are not files.
        """
        raise NotImplementedError(f"{type(self).__name__} has no encoded files")

    def record(self) -> dict[str, Any]:
        """JSON: kind, source, split, count, how it is prepared, and `manifest`, a sha256."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index}: expected 0..{len(self) - 1}")
        return self.sample(int(index))


def held_out(name: str, share: float) -> bool:
    """Whether `name` belongs to the validation share: a stable hash, the same on every machine."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def manifest_hash(lines: Iterable[str]) -> str:
    """sha256 over lines that name everything a data set is made of."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def text_of(path: Path) -> str:
    """The text of a file that a program wrote; DataError, naming it, if it is something else."""
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not text in UTF-8 ({error}); it is damaged or another file: move it away"
        ) from None


def one_line(reason: object) -> str:
    return " ".join(str(reason).split()) or type(reason).__name__
