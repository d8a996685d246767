"""Tiles of larger images: exact for one tile, no visible borders, any size."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from vistok import tiling
from vistok.core.errors import InputError
from vistok.data.batch import to_uint8
from vistok.tiling import Tiling
from vistok.tokens.labels import Tiled


def image(height: int, width: int) -> torch.Tensor:
    noise = torch.rand(3, height, width, generator=torch.Generator().manual_seed(height))
    return (noise * 255).byte()


@pytest.mark.parametrize("length", [None, 2])
def test_an_image_of_one_tile_is_encoded_and_decoded_as_ever(make_tokenizer, length):
    tokenizer, one = make_tokenizer(missing="drop"), image(8, 8)
    tokens, places = tiling.encode(tokenizer, one, length)
    plain = tokenizer.encode(one[None].float() / 255, length)
    assert len(places) == 1 and torch.equal(tokens.indices, plain.indices)
    whole = tiling.decode(tokenizer, tokens, places)
    assert torch.equal(whole, to_uint8(tokenizer.decode(plain))[0])


class Exact:
    """Stands for a tokenizer that gives the image back, each tile too light or too dark."""

    def __init__(self, tile: int, error: float) -> None:
        self.shape = SimpleNamespace(is_clip=False, sides=(tile, tile))
        self.error, self.batches = error, []

    def decode(self, tokens, condition, *, seed, index, sampling):
        self.batches.append(len(tokens))
        signs = torch.where(index % 2 == 0, 1.0, -1.0)[:, None, None, None]
        return tokens.tiles.float() / 255 + self.error * signs


class Tiles:
    """Stands for the tokens of tiles: the tiles themselves."""

    def __init__(self, tiles):
        self.tiles = tiles

    def __len__(self):
        return len(self.tiles)

    def select(self, rows):
        return Tiles(self.tiles[rows])


def rebuilt(one: torch.Tensor, tile: int, overlap: int | None = None, error: float = 0.0):
    tokenizer = Exact(tile, error)
    places = Tiling.of(tokenizer, tuple(one.shape[1:]), overlap)
    tiles = Tiles(places.cut(one, range(len(places))))
    return tiling.decode(tokenizer, tiles, places, batch=3), tokenizer, places


@pytest.mark.parametrize("tile", [8, 16])
def test_every_size_comes_back(tile):
    step = tile - tile // 8
    sizes = {1, 2, tile - 1, tile, tile + 1}
    sizes |= {n * step + tile // 8 + off for n in (2, 3) for off in (-1, 0, 1)}
    for height in sizes:
        for width in (1, tile + 1, 3 * step + tile // 8):
            back, tokenizer, _ = rebuilt(one := image(height, width), tile)
            assert torch.equal(back, one), (height, width)
            assert max(tokenizer.batches) <= 3


@pytest.mark.parametrize("overlap", [0, 1, 4, 8])
def test_every_overlap_covers_the_image_once(overlap):
    back, _, places = rebuilt(one := image(37, 50), 16, overlap)
    assert torch.equal(back, one)
    for axis in (0, 1):
        total = torch.zeros(200)
        for place in range(places.grid[axis]):
            start = place * (16 - overlap)
            total[start : start + 16] += places.weights(axis, place)
        reach = places.grid[axis] * (16 - overlap) + overlap
        assert torch.allclose(total[:reach], torch.ones(reach))


def test_no_border_is_seen_between_tiles_that_err_to_opposite_sides():
    """A smooth gradient; neighbors are 0.1 too light and too dark."""
    ramp = torch.linspace(60, 190, 100).expand(3, 16, 100).round().byte()
    back, _, places = rebuilt(ramp, 16, 8, error=0.1)
    change = back.float().diff(dim=-1).abs()[0, 0]
    borders = {left for n in range(1, places.grid[1]) for left in (places.corner(n)[1] - 1,)}
    borders |= {places.corner(n)[1] + 15 for n in range(places.grid[1] - 1)}
    borders = sorted(b for b in borders if b < 99)
    inside = [i for i in range(99) if i not in borders]
    assert change[borders].max() <= change[inside].max() <= 10  # of 51 between two tiles
    hard, *_ = rebuilt(ramp, 16, 0, error=0.1)
    assert hard.float().diff(dim=-1).abs().max() > 40


def test_what_cannot_be_tiled_is_one_line(make_tokenizer, fails):
    tokenizer = make_tokenizer()
    with fails(InputError, "overlap=5: expected 0..4"):
        tiling.encode(tokenizer, image(9, 9), overlap=5)
    with fails(InputError, "expected .3, H, W."):
        tiling.encode(tokenizer, image(9, 9)[None])
    tokens, places = tiling.encode(tokenizer, image(9, 20))
    assert len(tokens) == len(places) == 2 * 3
    with fails(InputError, "5 samples of tokens for 6 tiles"):
        tiling.decode(tokenizer, tokens.select(slice(5)), places)
    wrong = places.record().__class__(9, 20, 1, 5)
    with fails(InputError, "5 tiles; an image of 9x20 has 6 of 8x8"):
        Tiling.from_record(tokenizer, wrong)
    assert Tiling.from_record(tokenizer, places.record()) == places
    with pytest.raises(InputError, match="100000x100000; expected at most 100 Mpx"):
        Tiling.from_record(tokenizer, Tiled(100_000, 100_000, 1, 2**17))
    clips = SimpleNamespace(shape=SimpleNamespace(is_clip=True, frames=4))
    with fails(InputError, "clips of 4 frames; tiles are for images only"):
        Tiling.of(clips, (9, 9))
