"""Pairs of a few images for tests: a folder of originals and what preserve would write for it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vistok.config import validate
from vistok.config.registry import build
from vistok.data import FolderConfig
from vistok.data.pairs import INDEX, RECORD, PairRow, PairsWriter, file_of
from vistok.storage.sealed import read_sealed, sealed
from vistok.storage.weights import sha256

SIDE = 8
MADE = {
    "tokenizer": {"name": "tok", "sha256": "1" * 64, "codes_sha256": "2" * 64},
    "generator": {"name": "gen", "sha256": "3" * 64},
    "sigma": 0.7,
    "seed": 0,
    "sampling": {"generator": {}, "decoder": None},
}


def originals(folder: Path, count: int = 6) -> FolderConfig:
    """A folder of `count` images of two classes, and its config."""
    for number in range(count):
        place = folder / ("cat" if number % 2 else "dog") / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(_png(number))
    return validate(FolderConfig, {"kind": "folder", "path": str(folder), "size": SIDE})


def write_pairs(folder: Path, config: FolderConfig, order: tuple[int, ...] = (4, 0, 3)) -> None:
    """Pairs of the originals in `order`, as one process writes them."""
    data = build(config).open("train", augment=False)
    made = {"config": config.model_dump(mode="json"), "split": "train", "record": data.record()}
    writer = PairsWriter(folder, len(order), {"originals": made, **MADE}, every=2)
    for index in order:
        sample = data[index]
        file = file_of(data.classes[sample.label], sample.name, index)
        digest = writer.put(file, _png(100 + index))
        writer.count_up([PairRow(file, sample.name, index, sample.label, digest)])


def change_index(folder: Path, old: str, new: str) -> None:
    """Change the text of an index; its digest and the seal are right again."""
    index = folder / INDEX
    text = index.read_text("utf-8")
    assert old in text
    index.write_text(text.replace(old, new), encoding="utf-8")
    change_record(folder, index={"bytes": index.stat().st_size, "sha256": sha256(index)})


def change_record(folder: Path, **changes: Any) -> None:
    """Change keys of pairs.json; its seal is right again."""
    path = folder / RECORD
    path.write_text(sealed({**read_sealed(path), **changes}), encoding="utf-8")


def _png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()
