"""Base of all data sets: samples by index, class names, and a record of what was read.

A data part is `@register("data", XConfig)` on a class with `__init__(config)` and
`open(split, augment=None) -> Dataset`. A data set is picklable (workers may be spawned) and its
samples depend on (index, epoch, seed) alone: never on who asks, in which order, or on a global
generator.

`augment`: None augments the training split and no other; False opens a split as an evaluation or
a token cache reads it (center crop, no padding, no mirroring, no random start or crop, read by
index, nothing decoded ahead into memory); True augments either split.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import Tensor

from vistok.config.contract import check_methods, ducks, needed_by, required
from vistok.config.errors import InputError, UserError
from vistok.core.records import Condition
from vistok.tokens import TokenSpec

Split = Literal["train", "val"]
UNLABELED = -1
ducks("data", "open")  # parts have no base class, what they open has


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
    label: int = UNLABELED  # -1 = unlabeled
    name: str = ""
    tokens: Tensor | None = None  # [L, F] of type `Tokens.dtype(spec)`; [L, dim] if continuous
    fps: float | None = None  # frames per second of a clip's pixels
    text: str | None = None  # caption, where the data set has texts (`texts`)
    latents: Tensor | None = None  # cached: [N, D] the encoder's output
    space: Tensor | None = None  # cached: [C, *sides] in the tokenizer's input space
    condition: Condition | None = None  # cached: text [(K,) M, C], text_mask [M], pooled [C]
    prefix: Tensor | None = None  # cached: like tokens, those of the first frames
    target: Tensor | None = None  # like pixels: what must be rebuilt, if it is not `pixels`
    note: str = ""  # odd about its file, though it can be used; "" = nothing


class Raw(NamedTuple):
    """A sample as it is stored: its encoded file, before any decoder runs."""

    name: str
    data: bytes  # of the encoded file
    label: int = UNLABELED
    trouble: str = ""  # fault of the label, if any
    is_image: bool = True  # False: `images.decode` cannot read these bytes (clips)


def raw_of(
    name: str, data: bytes, label_of: Callable[[], int], text_of: Callable[[int], object]
) -> Raw:
    """The stored image `data` with its label, and the fault of its label or text if it has one.

    Args:
        label_of: gives the class number. text_of: the text, of the class number. Both raise
            BadSample or InputError.
    """
    label = UNLABELED
    try:
        label = label_of()
        text_of(label)
    except BadSample as bad:
        return Raw(name, data, label, bad.reason)
    except InputError as error:
        return Raw(name, data, label, str(error))
    return Raw(name, data, label)


class Facts:
    """Facts that data sets and streams state about all of their samples."""

    classes: tuple[str, ...] = ()
    """Class names by label; () = the data set has no labels."""
    size: tuple[int, int] | None = None
    """(H, W) of every sample's pixels; None = cached tokens."""
    frames: int | None = None
    """T of every sample's pixels; None = images."""
    flip: bool = False
    """True: training mirrors half of the samples (on the device, by the loader's draws)."""
    spec: TokenSpec | None = None
    """Spec of the samples' tokens, if they are cached tokens."""
    texts: bool = False
    """True: every sample has a text."""
    names: Sequence[str] | None = None
    """Paths of the samples' files below the data set's folder; None = they are not files."""
    targets: bool = False
    """True: every sample has a `target` besides its pixels."""
    features: Mapping[str, tuple[int, ...]] = {}
    """Shapes of arrays that every sample of a token cache brings besides its tokens, by name:
    text [(K,) M, C], text_mask [M], pooled [C] and score [] (`Sample.condition`), latents [N, D],
    space [C, *sides]."""
    empty_text: Condition | None = None
    """Features of the empty text in a token cache, [1, ...] each."""
    sets: Sequence[Facts] = ()
    """The data sets of a mix, of which each batch comes from one; () = a single data set."""

    @property
    def sides(self) -> tuple[int, ...] | None:
        """Sides of every sample's pixels: (H, W) of images, (T, H, W) of clips; None = tokens."""
        if self.size is None:
            return None
        return tuple(self.size) if self.frames is None else (self.frames, *self.size)

    def __new__(cls, *_: Any, **__: Any) -> Any:
        check_methods("data set", cls)
        return super().__new__(cls)

    @needed_by("training and evaluation")
    def record(self) -> dict[str, Any]:
        """JSON: kind, source, split, count, how it is prepared, and `manifest`, a sha256.

        A run asks for it when it begins: what happens to files later changes no record. A file
        that is missing is part of the manifest, and no error.
        """
        raise DataError(
            f"{type(self).__name__} has no record(); expected a dict with kind, source, split, "
            "count and manifest, a sha256"
        )


class Dataset(Facts):
    """Base of the data sets; a subclass gives `__len__`, `sample` and `record`.

    Where each sample is an encoded file, `raw` gives its bytes.
    """

    caption: Any = None
    """`captions.Caption`: class -> text, where texts are made so."""

    @required
    def __len__(self) -> int:
        """Number of samples."""
        raise NotImplementedError

    @required
    def sample(self, index: int, epoch: int = 0, seed: int = 0) -> Sample:
        """Sample `index` as epoch `epoch` of a run with `seed` sees it; BadSample if unusable."""
        raise NotImplementedError

    def raw(self, index: int) -> Raw:
        """The encoded file of a sample; BadSample if it cannot be read.

        NotImplementedError: samples of this kind are not files.
        """
        raise NotImplementedError(f"{type(self).__name__} has no encoded files")

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index}: expected 0..{len(self) - 1}")
        return self.sample(int(index))


def augments(split: Split, augment: bool | None) -> bool:
    """The value of `augment` that a part's `open` means: by default, training is augmented."""
    return split == "train" if augment is None else augment


def mismatch(data: Facts, sides: Sequence[int], reader: str) -> str | None:
    """One line if pixels of `data` do not have `sides` ((H, W) or (T, H, W)); None if they do.

    reader: what takes them, e.g. "this tokenizer".
    """
    for number, one in enumerate(data.sets):
        problem = mismatch(one, sides, reader)
        if problem is not None:
            return of_set(number, problem)
    wanted, found = tuple(sides), data.sides
    if data.spec is not None:
        return (
            f"data: gives cached tokens; {reader} takes {describe_sides(wanted)}: use a kind of "
            f"images or clips, e.g. data.kind=folder"
        )
    if found is None or found == wanted:
        return None
    changes = []
    if found[-2:] != wanted[-2:]:
        height, width = wanted[-2:]
        changes.append(f"data.size={height if height == width else f'[{height},{width}]'}")
    if found[:-2] != wanted[:-2]:
        changes.append(f"data.frames={wanted[0] if len(wanted) == 3 else 'null'}")
    return (
        f"data: gives {describe_sides(found)}; {reader} takes {describe_sides(wanted)}: set "
        f"{' '.join(changes)}"
    )


def of_set(number: int, problem: str) -> str:
    """A problem of `mismatch`, told of one data set of a mix."""
    return problem.replace("data:", f"data set {number}:", 1).replace("data.", "its ")


def stated(config: Any) -> Facts:
    """The facts that a data config states by itself in `size` and `frames`; nothing is opened."""
    facts, size = Facts(), getattr(config, "size", None)
    if size is not None:
        facts.size = (size, size) if isinstance(size, int) else tuple(size)
        facts.frames = getattr(config, "frames", None)
    return facts


def describe_sides(sides: Sequence[int]) -> str:
    """ "images of 32x32 pixels" or "clips of 8 frames of 32x32 pixels" ((H, W) or (T, H, W))."""
    pixels = f"{sides[-2]}x{sides[-1]} pixels"
    return f"images of {pixels}" if len(sides) == 2 else f"clips of {sides[0]} frames of {pixels}"


def held_out(name: str, share: float) -> bool:
    """True if `name` belongs to the validation share: a stable hash, the same on every machine."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def manifest_hash(lines: Iterable[str]) -> str:
    """sha256 over lines that name everything a data set is made of."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def file_size(path: str | os.PathLike[str]) -> int:
    """Bytes of a file, for a manifest; -1 if it is missing, or a link to nothing.

    Its samples are then bad samples, which end no run by themselves.
    """
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return -1


def text_of(path: Path) -> str:
    """The text of a file that a program wrote; DataError, naming it, if it is something else."""
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not text in UTF-8 ({error}); it is damaged or another file: move it away"
        ) from None


def one_line(reason: object) -> str:
    """The text of a reason (an error, say) without line breaks; its type's name if it is empty."""
    return " ".join(str(reason).split()) or type(reason).__name__
