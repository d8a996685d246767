"""The contact sheet of a token cache shows samples and what the stored tokens decode to."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.training import TINY, cache_tree
from vistok.config import validate
from vistok.data import PhotosConfig
from vistok.data.batch import to_uint8
from vistok.data.decode.crops import open_crops
from vistok.data.token_cache import TokenCache
from vistok.tokenizer import Tokenizer, TokenizerConfig
from vistok.tokens import Tokens
from vistok.train.jobs.contact_sheet import write_contact_sheet

TOP = 20  # pixels: the title of the first band and the gap below it
SIDE = 96  # pixels of 32 are shown three times as large


def saved(folder: Path, quantizer: dict, frames: int | None = None) -> Tokenizer:
    tree = copy.deepcopy(TINY["task"]["tokenizer"]) | {"quantizer": quantizer}
    if frames:
        tree["frames"] = frames
        for part in ("encoder", "decoder"):
            tree[part]["patches"] = {"size": 8, "frames": frames}
    torch.manual_seed(0)
    tokenizer = Tokenizer(validate(TokenizerConfig, tree)).eval()
    with torch.no_grad():  # so that images differ
        for parameter in tokenizer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    tokenizer.save_pretrained(folder)
    return tokenizer


def pair(sheet: Path, sample: int, frame: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(original, decoded) [3, 32, 32] uint8 of a sample of the first row."""
    image = np.asarray(Image.open(sheet).convert("RGB"))
    x = sample * (SIDE + 4) + frame * (SIDE + 1)
    tiles = (image[y : y + SIDE : 3, x : x + SIDE : 3] for y in (TOP, TOP + SIDE + 1))
    return tuple(torch.from_numpy(tile.copy()).permute(2, 0, 1) for tile in tiles)


@pytest.mark.parametrize("quantizer", [{"kind": "fsq", "levels": [5, 5]}, {"kind": "kl", "dim": 3}])
def test_samples_and_their_stored_tokens(run, tmp_path, quantizer):
    tokenizer = saved(tmp_path / "tok", quantizer)
    tree = cache_tree(tmp_path / "tok", limit=5)
    tree["task"] |= {"crops": "ten", "crop_range": [1.25, 1.5]}
    folder = run(tree, "tokens")
    cache = TokenCache(folder / "train")
    views = open_crops(PhotosConfig(size=32, count=100), "train", "ten", (1.25, 1.5))

    def decoded(row: torch.Tensor) -> torch.Tensor:
        kind = {"indices": row[None]} if cache.spec.vocab else {"values": row[None]}
        with torch.no_grad():
            return to_uint8(tokenizer.decode(Tokens(cache.spec, **kind)))[0]

    sheet = folder / "contact_sheet.png"
    for sample in (0, 4):
        original, shown = pair(sheet, sample)
        assert torch.equal(original, views[20 * sample + 4].pixels)  # the center
        assert torch.equal(shown, decoded(cache.row(sample, 4)[0]))
    # What lies in the file is shown, whatever was cached.
    before = pair(sheet, 0)
    rows = np.load(folder / "train" / "tokens.npy", mmap_mode="r+")
    rows[4] = rows[4] == 0
    rows.flush()
    write_contact_sheet(folder, {"train": views}, tokenizer)
    after = pair(sheet, 0)
    assert torch.equal(after[0], before[0]) and not torch.equal(after[1], before[1])
    assert torch.equal(after[1], decoded(torch.from_numpy(rows[4].copy())))


def test_clips_are_strips_of_frames(run, tmp_path):
    saved(tmp_path / "clips", {"kind": "fsq", "levels": [5, 5]}, frames=2)
    tree = cache_tree(tmp_path / "clips", limit=3)
    tree["data"] = {**tree["data"], "frames": 2}
    folder = run(tree, "tokens")
    views = open_crops(PhotosConfig(size=32, count=100, frames=2), "train", 1, 1.1)
    for frame in (0, 1):
        original, _ = pair(folder / "contact_sheet.png", 0, frame)
        assert torch.equal(original, views[0].pixels[:, frame])
