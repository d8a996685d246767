"""One image at several lengths, and JPEG and WebP files of no more bytes: what `vistok try` shows.

JPEG and WebP may shrink the image to 1/2, 1/4 or 1/8 first, and then take the highest quality whose
file is not larger than the .vtk file, headers included on both sides; the best PSNR counts.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vistok.cli.media import LONGEST
from vistok.core.errors import InputError

CODECS = {"JPEG": {"optimize": True}, "WebP": {"method": 6}}
_SHRUNK = (1, 2, 4, 8)  # sides of the image are divided by these
_BEST = 100  # the highest quality of both
_MOST = 7  # lengths that are shown


@dataclass(frozen=True)
class Coded:
    """An image as a file of some codec holds it."""

    image: Image.Image | None  # None: no file of this codec is that small
    bytes: int | None  # of the file; of the smallest there is, if `image` is None; None = no bytes
    psnr: float  # decibels; nan without an image

    @property
    def missing(self) -> bool:
        return self.image is None


@dataclass(frozen=True)
class Step:
    """One length of the tokenizer, and the other codecs at its bytes."""

    tokens: int
    own: Coded
    others: dict[str, Coded]


@dataclass(frozen=True)
class Comparison:
    """One image at all lengths."""

    name: str
    model: str
    original: Image.Image
    steps: tuple[Step, ...]
    prepared: str  # words on what was done to the image
    tiles: int | None = None

    def runs(self, codec: str) -> list[tuple[int, int]]:
        """(first step, number of steps) of neighboring steps that a codec has no files for."""
        found: list[tuple[int, int]] = []
        for place, step in enumerate(self.steps):
            if not step.others[codec].missing:
                continue
            if found and sum(found[-1]) == place:
                found[-1] = (found[-1][0], found[-1][1] + 1)
            else:
                found.append((place, 1))
        return found

    @property
    def pixels(self) -> int:
        return self.original.width * self.original.height


def lengths_of(spec: Any) -> list[int]:
    """The lengths that evaluation visits; of more than seven the shortest and the longest six."""
    lengths = list(spec.eval_lengths)
    return lengths if len(lengths) <= _MOST else [lengths[0], *lengths[1 - _MOST :]]


def compare(
    rows: Sequence[tuple[Tensor, int | None]],
    original: Tensor,
    spec: Any,
    lengths: Sequence[int],
    **about: Any,
) -> Comparison:
    """The comparison of an image [3, H, W] uint8.

    Args:
        rows: (reconstruction [3, H, W] uint8, bytes of its file or None) of each length.
        about: the other fields of the result: name, model, prepared, tiles.
    """
    whole, steps = _image(original), []
    codecs = {name: SmallFiles(whole, name) for name in CODECS}
    for (decoded, size), length in zip(rows, lengths, strict=True):
        own = Coded(_image(decoded), size, _psnr(decoded, original))
        others = {} if size is None else {n: one.at_most(size) for n, one in codecs.items()}
        steps.append(Step(spec.positions_in(length) * (about.get("tiles") or 1), own, others))
    return Comparison(original=whole, steps=tuple(steps), **about)


class SmallFiles:
    """The files of one image in one codec, each written once."""

    def __init__(self, image: Image.Image, codec: str) -> None:
        self.image, self.codec = image, codec
        longest = LONGEST[codec.upper()]
        self._factors = [f for f in _SHRUNK if max(image.size) / f <= longest]
        if not self._factors:
            raise InputError(
                f"an image of {image.width}x{image.height} is too long for {codec}; expected sides "
                f"of {_SHRUNK[-1] * longest:,} pixels or fewer"
            )
        self._shrunk: dict[int, Image.Image] = {}
        self._written: dict[tuple[int, int], bytes] = {}

    def at_most(self, limit: int) -> Coded:
        """The best file of at most `limit` bytes."""
        best = Coded(None, None, -math.inf)
        for factor in self._factors:
            quality = self._highest(factor, limit)
            if quality is not None:
                made = self._coded(factor, quality)
                best = made if made.psnr > best.psnr else best
        if best.image is None:
            return Coded(None, min(len(self._file(f, 0)) for f in self._factors), math.nan)
        return best

    def _highest(self, factor: int, limit: int) -> int | None:
        """The highest quality whose file fits, by bisection: sizes grow with quality."""
        if len(self._file(factor, 0)) > limit:
            return None
        low, high = 0, _BEST + 1
        while high - low > 1:
            middle = (low + high) // 2
            fits = len(self._file(factor, middle)) <= limit
            low, high = (middle, high) if fits else (low, middle)
        return low

    def _file(self, factor: int, quality: int) -> bytes:
        if factor not in self._shrunk:
            size = [max(1, round(side / factor)) for side in self.image.size]
            shrunk = self.image.resize(size, Image.Resampling.LANCZOS)
            self._shrunk[factor] = self.image if factor == 1 else shrunk
        if (factor, quality) not in self._written:
            file = io.BytesIO()
            self._shrunk[factor].save(file, self.codec, quality=quality, **CODECS[self.codec])
            self._written[factor, quality] = file.getvalue()
        return self._written[factor, quality]

    def _coded(self, factor: int, quality: int) -> Coded:
        data = self._file(factor, quality)
        with Image.open(io.BytesIO(data)) as file:
            back = file.convert("RGB")
        if back.size != self.image.size:
            back = back.resize(self.image.size, Image.Resampling.BICUBIC)
        return Coded(back, len(data), _psnr(_tensor(back), _tensor(self.image)))


def reconstructions(
    tokenizer: Any,
    codec: Any,
    image: Tensor,
    lengths: Sequence[int],
    condition: Any = None,
    seed: int = 0,
    tile: bool = False,
    told: Callable[[int, int], None] | None = None,
) -> tuple[list[tuple[Tensor, int | None]], int | None]:
    """((image [3, H, W] uint8, bytes of its file) of each length, number of tiles or None).

    Args:
        image: [3, H, W] uint8 of the tokenizer's size, or of any size with `tile`.
        codec: writes the files; None = continuous tokens, which have no bytes.
        condition: of one image.
    """
    from vistok import tiling
    from vistok.data.batch import to_uint8
    from vistok.tokens.labels import Record

    if tile:
        tokens, places = tiling.encode(tokenizer, image, condition=condition, told=told)
        rows = []
        for length in lengths:
            cut = _cut(tokens, length)
            back = tiling.decode(tokenizer, cut, places, condition, seed=seed, told=told)
            data = None if codec is None else codec.write_record(Record(cut, None, places.record()))
            rows.append((back, None if data is None else len(data)))
        return rows, len(places)
    pixels = image[None].float() / 255
    tokens = tokenizer.encode(pixels, condition=condition)
    cuts = [_cut(tokens, length) for length in lengths]
    index = torch.zeros(1, dtype=torch.long)
    decoded = [tokenizer.decode(cut, condition, seed=seed, index=index) for cut in cuts]
    sizes = [None if codec is None else len(codec.write(cut)[0]) for cut in cuts]
    return list(zip([to_uint8(one)[0].cpu() for one in decoded], sizes, strict=True)), None


def _cut(tokens: Any, length: int) -> Any:
    return tokens if tokens.spec.prefix == "none" else tokens.prefix(length)


def _psnr(decoded: Tensor, real: Tensor) -> float:
    from vistok.adaptive import psnr_of_each

    return float(psnr_of_each(decoded[None], real[None])[0])


def _image(pixels: Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def _tensor(image: Image.Image) -> Tensor:
    from vistok.data.decode.images import to_tensor

    return to_tensor(image)
