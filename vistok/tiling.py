"""Images larger than a tokenizer's, in overlapping tiles that are blended where they meet.

Tiles lie on a regular grid, `tile - overlap` pixels apart, from the top left corner. Where they
reach beyond the image, at the right and at the bottom, they are filled by reflection, and cut off
again. Where tiles overlap, their reconstructions are mixed with weights that change linearly from
one to the other and sum to 1, so that no border can be seen.

Memory does not grow with the number of tiles: they are cut, encoded and decoded in batches, and of
the result one row of tiles is held in floats besides the image in bytes.
Letters: H W pixels of the image, h w of a tile, N tiles, row by row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vistok.core.errors import InputError
from vistok.core.records import Condition
from vistok.data.batch import to_uint8
from vistok.data.decode.images import PIXEL_LIMIT
from vistok.tokenizer import Tokenizer
from vistok.tokens import Tokens
from vistok.tokens.labels import Tiled

_SHARE = 8  # the default overlap is this part of a tile's shorter side
BATCH = 16  # tiles at a time
Told = Callable[[int, int], None]


@dataclass(frozen=True)
class Tiling:
    """Places of the tiles of one image."""

    sides: tuple[int, int]  # (H, W)
    tile: tuple[int, int]  # (h, w)
    overlap: int

    def __post_init__(self) -> None:
        if min(self.sides) < 1:
            raise InputError(f"an image of {self.sides[0]}x{self.sides[1]}; expected sides of 1+")
        if not 0 <= self.overlap <= min(self.tile) // 2:
            raise InputError(
                f"overlap={self.overlap}: expected 0..{min(self.tile) // 2}, half of a tile's "
                "shorter side"
            )

    @classmethod
    def of(cls, tokenizer: Tokenizer, sides: tuple[int, int], overlap: int | None = None) -> Tiling:
        """The tiling of an image of `sides` (H, W); the default overlap is 1/8 of a tile.

        InputError for a tokenizer of clips, and for an overlap that is larger than half a tile.
        """
        if tokenizer.shape.is_clip:
            raise InputError(
                f"tiles: this tokenizer takes clips of {tokenizer.shape.frames} frames; tiles are "
                "for images only"
            )
        tile = tokenizer.shape.sides
        overlap = min(tile) // _SHARE if overlap is None else overlap
        return cls(tuple(sides), tuple(tile), overlap)

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of tiles."""
        rows, columns = (
            max(1, math.ceil((side - self.overlap) / (tile - self.overlap)))
            for side, tile in zip(self.sides, self.tile, strict=True)
        )
        return rows, columns

    def __len__(self) -> int:
        return math.prod(self.grid)

    def record(self) -> Tiled:
        """The facts that a .vtk file keeps."""
        return Tiled(*self.sides, self.overlap, len(self))

    @classmethod
    def from_record(cls, tokenizer: Tokenizer, tiled: Tiled) -> Tiling:
        """The tiling that a .vtk file describes; InputError if it cannot be of this tokenizer."""
        if tiled.height * tiled.width > PIXEL_LIMIT:  # a few bytes may say any size
            raise InputError(
                f"an image of {tiled.height}x{tiled.width}; expected at most "
                f"{PIXEL_LIMIT / 1e6:g} Mpx, as of images that are encoded"
            )
        tiling = cls.of(tokenizer, (tiled.height, tiled.width), tiled.overlap)
        if len(tiling) != tiled.count:
            raise InputError(
                f"{tiled.count} tiles; an image of {tiled.height}x{tiled.width} has {len(tiling)} "
                f"of {tiling.tile[0]}x{tiling.tile[1]}: the file is damaged"
            )
        return tiling

    def corner(self, number: int) -> tuple[int, int]:
        """(top, left) of a tile in pixels of the image."""
        row, column = divmod(number, self.grid[1])
        return row * (self.tile[0] - self.overlap), column * (self.tile[1] - self.overlap)

    def cut(self, image: Tensor, numbers: range) -> Tensor:
        """Tiles [n, 3, h, w] of an image [3, H, W], reflected where they reach beyond it."""
        tiles = []
        for number in numbers:
            top, left = self.corner(number)
            rows = _reflected(top, self.tile[0], self.sides[0])
            columns = _reflected(left, self.tile[1], self.sides[1])
            tiles.append(image[:, rows][:, :, columns])
        return torch.stack(tiles)

    def weights(self, axis: int, place: int) -> Tensor:
        """Weights [h] or [w] of the tile in this place (row or column) along an axis."""
        size, last = self.tile[axis], self.grid[axis] - 1
        ramp = (torch.arange(self.overlap) + 0.5) / max(self.overlap, 1)
        weights = torch.ones(size)
        if place > 0:
            weights[: self.overlap] = ramp
        if place < last:
            weights[size - self.overlap :] = 1 - ramp
        return weights


@torch.no_grad()
def encode(
    tokenizer: Tokenizer,
    image: Tensor,
    length: int | None = None,
    condition: Condition | None = None,
    *,
    overlap: int | None = None,
    batch: int = BATCH,
    told: Told | None = None,
) -> tuple[Tokens, Tiling]:
    """An image [3, H, W] of any size (uint8, or floats in 0..1) -> the tokens of its N tiles.

    Args:
        length: of every tile, as in `Tokenizer.encode`.
        condition: of one sample; every tile gets it.
        overlap: pixels that neighboring tiles share; None = 1/8 of a tile.
        batch: tiles at a time.
        told: called with (tiles that are done, N) after each batch.
    """
    if image.ndim != 3 or image.shape[0] != 3:
        raise InputError(f"image of shape {tuple(image.shape)}; expected [3, H, W]")
    tiling = Tiling.of(tokenizer, tuple(image.shape[1:]), overlap)
    device = next(tokenizer.parameters()).device
    parts = []
    for numbers in _batches(len(tiling), batch):
        tiles = tiling.cut(image, numbers).to(device)
        pixels = tiles.float() / 255 if tiles.dtype == torch.uint8 else tiles
        parts.append(tokenizer.encode(pixels, length, of_all(condition, len(numbers))))
        if told is not None:
            told(numbers.stop, len(tiling))
    return Tokens.cat(parts), tiling


@torch.no_grad()
def decode(
    tokenizer: Tokenizer,
    tokens: Tokens,
    tiling: Tiling,
    condition: Condition | None = None,
    *,
    seed: int = 0,
    sampling: Any = None,
    batch: int = BATCH,
    told: Told | None = None,
) -> Tensor:
    """The tokens of N tiles -> the image [3, H, W] uint8, on the CPU.

    Args:
        condition: of one sample; every tile gets it.
        seed, sampling: as in `Tokenizer.decode`; the noise of a decoder that samples is keyed by
            the number of the tile.
        told: called with (tiles that are done, N) after each batch.
    """
    if len(tokens) != len(tiling):
        raise InputError(f"{len(tokens)} samples of tokens for {len(tiling)} tiles")
    (height, width), (h, w), (rows, columns) = tiling.sides, tiling.tile, tiling.grid
    step = h - tiling.overlap
    image = torch.empty(3, height, width, dtype=torch.uint8)
    wide = columns * (w - tiling.overlap) + tiling.overlap
    open_ = torch.zeros(3, h, wide)  # pixels [3, h, W] of the tiles' current row, not yet complete
    tiles = _decoded(tokenizer, tokens, condition, seed, sampling, batch, told)
    for row in range(rows):
        down = tiling.weights(0, row)[:, None]
        for column in range(columns):
            left = column * (w - tiling.overlap)
            open_[:, :, left : left + w] += next(tiles) * (down * tiling.weights(1, column))
        done = h if row == rows - 1 else step  # the rows that no further tile reaches
        top = row * step
        kept = min(done, height - top)
        image[:, top : top + kept] = to_uint8(open_[:, :kept, :width])
        below = torch.zeros_like(open_)
        below[:, : h - step] = open_[:, step:]
        open_ = below
    return image


def _decoded(
    tokenizer: Tokenizer,
    tokens: Tokens,
    condition: Condition | None,
    seed: int,
    sampling: Any,
    batch: int,
    told: Told | None,
) -> Iterator[Tensor]:
    """Pixels [3, h, w] of each tile on the CPU, decoded in batches."""
    for numbers in _batches(len(tokens), batch):
        pixels = tokenizer.decode(
            tokens.select(slice(numbers.start, numbers.stop)),
            of_all(condition, len(numbers)),
            seed=seed,
            index=torch.tensor(numbers),
            sampling=sampling,
        )
        if told is not None:
            told(numbers.stop, len(tokens))
        yield from pixels.float().cpu()


def of_all(condition: Condition | None, count: int) -> Condition | None:
    """The condition of one sample for `count` of them."""
    return None if condition is None else condition.select(torch.zeros(count, dtype=torch.long))


def _batches(count: int, batch: int) -> Iterator[range]:
    for start in range(0, count, batch):
        yield range(start, min(count, start + batch))


def _reflected(start: int, size: int, side: int) -> Tensor:
    """Places start .. start+size-1 in 0..side-1, reflected at the last one as often as need be."""
    places = torch.arange(start, start + size)
    if side == 1:
        return torch.zeros_like(places)
    places = places % (2 * (side - 1))
    return torch.where(places < side, places, 2 * (side - 1) - places)
