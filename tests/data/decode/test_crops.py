"""Crops of token caches: LlamaGen's ten, the center and its mirror; drawn by key when read."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import TenCrop

from vistok.config import ConfigError
from vistok.config.registry import build
from vistok.data import CachedTokensConfig, FolderConfig, PhotosConfig, TokenCacheWriter
from vistok.data.decode.crops import open_crops
from vistok.data.decode.transforms import adm_crop
from vistok.tokens import Tokens, TokenSpec


@pytest.fixture
def folder(tmp_path, make_image):
    for i in range(3):
        make_image(70 + i, 50, i).save(tmp_path / f"{i}.png")
    return tmp_path


def test_ten_crops_are_those_of_llamagen(folder):
    """center_crop_arr (ADM's) at int(1.1 * size), then torchvision's TenCrop, mirrored set last."""
    config = FolderConfig(path=str(folder), size=32, crop="adm", pad=4)
    data = open_crops(config, "train", "ten", 1.1)
    assert len(data) == 30 and data.size == (32, 32) and not data.flip
    for number in range(3):
        wide = adm_crop(Image.open(folder / f"{number}.png"), 35)
        for crop, expected in enumerate(TenCrop(32)(wide)):
            sample = data[10 * number + crop]
            pixels = torch.from_numpy(np.asarray(expected).transpose(2, 0, 1).copy())
            assert torch.equal(sample.pixels, pixels) and sample.index == 10 * number + crop
    assert len({data[i].pixels.numpy().tobytes() for i in range(10)}) == 10
    how = {"kind": "ten", "size": [32, 32], "center": 4, "range": 1.1}
    assert data.record()["crops"] == how and data.record()["size"] == [35, 35]


def test_two_ranges_are_two_sets_of_which_an_epoch_draws_one(folder):
    """LlamaGen trains on ten crops at 1.1 and ten at 1.05."""
    config = FolderConfig(path=str(folder), size=32, crop="adm", pad=4)
    data = open_crops(config, "train", "ten", (1.1, 1.25))
    apart = [open_crops(config, "train", "ten", one) for one in (1.1, 1.25)]
    assert data.crops == 20 and len(data) == 60
    for row in range(60):
        sample, crop = divmod(row, 20)
        expected = apart[crop // 10][10 * sample + crop % 10]
        assert torch.equal(data[row].pixels, expected.pixels) and data[row].index == row
    assert data.record()["crops"] == {
        **apart[0].record()["crops"],
        "range": [1.1, 1.25],
    }
    spec = TokenSpec(blocks=((1,),), vocab=(100,))
    facts = {"source": data.record(), "tokenizer": "tiny", "sha256": "1", "crops": 20}
    with TokenCacheWriter(folder / "c", spec, 60, **facts) as writer:
        writer.write(Tokens.of(spec, torch.arange(60)[:, None, None]))
    cached = build(CachedTokensConfig(path=str(folder / "c"))).open("train")
    drawn = [[int(cached.sample(i, epoch).tokens) for i in range(3)] for epoch in range(200)]
    for i in range(3):  # one crop of each sample, and over the epochs all of them
        assert {one[i] for one in drawn} == set(range(20 * i, 20 * i + 20))
    assert [int(cached.sample(i, 7).tokens) for i in range(3)] == drawn[7]


def test_two_crops_are_the_center_and_its_mirror(folder):
    plain = build(FolderConfig(path=str(folder), size=32, flip=False)).open("train")
    config = FolderConfig(path=str(folder), size=32, crop="random", min_share=0.5)
    data = open_crops(config, "train", 2, 1.1)
    for i in range(3):
        assert torch.equal(data[2 * i].pixels, plain[i].pixels)
        assert torch.equal(data[2 * i + 1].pixels, plain[i].pixels.flip(-1))
    one = open_crops(config, "train", 1, 1.1)
    assert type(one) is type(plain) and len(one) == 3 and "crops" not in one.record()


def test_photographs_are_cropped_too_and_each_is_made_once(monkeypatch):
    data = open_crops(PhotosConfig(size=20, count=4), "train", "ten", 1.25)
    assert data[7].pixels.shape == (3, 20, 20) and data.record()["size"] == [25, 25]
    made = []
    monkeypatch.setattr(
        data.images, "sample", lambda i, take=data.images.sample: made.append(i) or take(i)
    )
    for row in range(13, 40):
        assert data[row].label == data.images.sample(row // 10).label
    assert len(made) == 27 + 3  # 27 of them are this test's own


def test_all_frames_of_a_clip_are_cropped_alike():
    clips = open_crops(PhotosConfig(size=20, count=3, frames=4), "train", "ten", 1.25)
    assert clips.sides == (4, 20, 20)
    whole = build(PhotosConfig(size=25, count=3, frames=4)).open("train")
    for row in range(30):
        sample = clips[row]
        assert sample.pixels.shape == (3, 4, 20, 20) and sample.fps == 8.0
        for frame in range(4):
            expected = TenCrop(20)(whole[row // 10].pixels[:, frame])[row % 10]
            assert torch.equal(sample.pixels[:, frame], expected)


def test_tokens_have_nothing_to_crop(tmp_path):
    with pytest.raises(ConfigError, match="kind tokens has no size"):
        open_crops(CachedTokensConfig(path=str(tmp_path)), "train", "ten", 1.1)


@pytest.mark.parametrize(("kind", "center"), [("ten", 4), (2, 0), (None, 0)])
def test_validation_reads_the_center(tmp_path, kind, center):
    spec, crops = TokenSpec(blocks=((1,),), vocab=(100,)), {"ten": 10, 2: 2, None: 5}[kind]
    source = {"kind": "x"} | ({"crops": {"kind": kind, "center": center}} if kind else {})
    facts = {"source": source, "tokenizer": "tiny", "sha256": "1", "crops": crops}
    with TokenCacheWriter(tmp_path / "c", spec, 4 * crops, **facts) as writer:
        writer.write(Tokens.of(spec, torch.arange(4 * crops)[:, None, None]))
    config = CachedTokensConfig(path=str(tmp_path / "c"), val_path=str(tmp_path / "c"))
    data = build(config).open("val")
    assert [int(data[i].tokens) for i in range(4)] == [crops * i + center for i in range(4)]
