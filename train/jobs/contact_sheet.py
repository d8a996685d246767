"""An image of a token cache: samples, and below each what its stored tokens decode to.

It is made of the files, not of what was in memory when they were written, so that it shows tokens
of another tokenizer, mixed-up rows and wrong crops for what they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from vistok.core.records import Batch
from vistok.core.text import printable
from vistok.data.base import Dataset
from vistok.data.batch import to_uint8
from vistok.data.token_cache import TokenCache
from vistok.drawing import beside, stacked, text
from vistok.storage.files import replacing
from vistok.tokenizer import Tokenizer
from vistok.tokens import Tokens

NAME = "contact_sheet.png"
_SAMPLES, _FRAMES = 8, 4  # of each split; of each clip
_LONGEST, _SHORTEST = 128, 96  # pixels of an image's longer side: larger are shrunk, smaller grown
_GAP, _LINE = 4, 16  # pixels between images; of a line of text
_WIDEST = _SAMPLES * (_LONGEST + _GAP)  # pixels of a row: all samples, if they are images


def write_contact_sheet(folder: Path, splits: Mapping[str, Dataset], tokenizer: Tokenizer) -> None:
    """Write `contact_sheet.png` for the caches `folder`/SPLIT of data sets; an old one is replaced.

    Of several crops of a sample the center is shown, of a clip a few frames from first to last.
    """
    bands = []
    for split, dataset in splits.items():
        cache = TokenCache(folder / split, verify=False)
        pairs, labels = _pairs(cache, dataset, tokenizer)
        title = f"{split}: {len(pairs)} of {len(cache):,} samples, and their stored tokens decoded"
        bands.append(_band(title, pairs, labels))
    with replacing(folder / NAME) as draft:
        stacked(bands, _GAP).save(draft, format="PNG")


def _pairs(
    cache: TokenCache, dataset: Dataset, tokenizer: Tokenizer
) -> tuple[list[tuple[Image.Image, Image.Image]], list[str]]:
    """(image of a sample, image of its tokens) of the first samples, and their classes."""
    count = min(_SAMPLES, len(cache))
    samples = [dataset[i * cache.crops + cache.center] for i in range(count)]
    rows = torch.stack([cache.row(i, cache.center)[0] for i in range(count)])
    kind = {"indices": rows} if cache.spec.vocab else {"values": rows}
    device = next(tokenizer.parameters()).device
    pixels = torch.stack([sample.pixels for sample in samples])
    rates = [sample.fps for sample in samples]
    batch = Batch(
        index=torch.arange(count),
        pixels=pixels.to(device).float() / 255,
        text=tuple(sample.text or "" for sample in samples),
        fps=None if None in rates else torch.tensor(rates, device=device),
    )
    reads = "decoder" in tokenizer.config.reading
    with torch.no_grad():
        decoded = tokenizer.decode(
            Tokens(cache.spec, **kind).to(device),
            tokenizer.condition_of(batch) if reads else None,
            index=batch.index,
        )
    made = [_small(one) for one in to_uint8(decoded).cpu()]
    names = ["" if s.label < 0 else printable(cache.classes[s.label])[:40] for s in samples]
    return list(zip([_small(one) for one in pixels], made, strict=True)), names


def _small(pixels: Tensor) -> Image.Image:
    """[3, H, W] uint8, or a clip [3, T, H, W] as a strip of a few frames -> one small image."""
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    frames = pixels.shape[1]
    places = torch.linspace(0, frames - 1, min(_FRAMES, frames)).round().long()
    images = [Image.fromarray(pixels[:, i].permute(1, 2, 0).numpy()) for i in places.tolist()]
    longest = max(images[0].size)
    wanted = min(max(longest, _SHORTEST), _LONGEST)
    if longest != wanted:
        size = tuple(max(1, round(side * wanted / longest)) for side in images[0].size)
        filter_ = Image.Resampling.LANCZOS if wanted < longest else Image.Resampling.NEAREST
        images = [image.resize(size, filter_) for image in images]
    return beside(images, 1)


def _band(
    title: str, pairs: Sequence[tuple[Image.Image, Image.Image]], labels: Sequence[str]
) -> Image.Image:
    """A line of text, and below it the pairs in rows: original, decoded, class."""
    width = pairs[0][0].width
    columns = max(1, min(len(pairs), _WIDEST // (width + _GAP)))
    tiles = [
        stacked([*pair, text(label, width, _LINE)], 1)
        for pair, label in zip(pairs, labels, strict=True)
    ]
    rows = [beside(tiles[i : i + columns], _GAP) for i in range(0, len(tiles), columns)]
    wide = max(row.width for row in rows)
    return stacked([text(title, max(wide, 480), _LINE), *rows], _GAP)
