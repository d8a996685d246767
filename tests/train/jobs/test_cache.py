"""Caching tokens: interrupted or not, on any number of processes, it gives the same bytes."""

from __future__ import annotations

import copy
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.caches import change_meta
from tests.support.training import TINY, cache_tree, command
from vistok.config import ConfigError, validate
from vistok.config.registry import build
from vistok.data import DataError, PhotosConfig
from vistok.data.token_cache import TokenCache
from vistok.tokenizer import Tokenizer, TokenizerConfig


def test_a_cache_holds_what_the_tokenizer_says(cached):
    folder, tokens = cached
    tokenizer = Tokenizer.from_pretrained(folder / "model")
    photos = build(PhotosConfig(size=32, count=100, val_count=16)).open("train")
    cache = TokenCache(tokens / "train")
    assert len(cache) == 48
    for i in (0, 19, 20, 47):
        expected = tokenizer.encode(photos[i].pixels[None].float() / 255).indices[0]
        indices, label = cache.row(i)
        assert torch.equal(indices, expected) and label == photos[i].label


def test_an_interrupted_cache_goes_on_where_it_stopped(run, cached):
    folder, tokens = cached
    whole = np.load(tokens / "train" / "tokens.npy")
    torn = np.load(tokens / "train" / "tokens.npy", mmap_mode="r+")
    torn[33:] = 0  # rows that a kill lost
    torn.flush()
    change_meta(tokens / "train", written=33)
    run(cache_tree(folder), "tokens")
    assert np.array_equal(np.load(tokens / "train" / "tokens.npy"), whole)


def test_a_cache_of_ten_crops_goes_on_in_the_middle_of_a_sample(run, tmp_path):
    from vistok.data.decode.crops import open_crops

    folder = run(TINY, "tokenizer", steps=4)
    tree = cache_tree(folder, limit=7)
    tree["task"] |= {"crops": "ten", "crop_range": 1.25}
    whole = run(tree, "tokens")
    cache = TokenCache(whole / "train")
    assert len(cache) == 7 and cache.crops == 10 and cache.center == 4
    assert cache.meta["source"]["crops"]["range"] == 1.25
    assert TokenCache(whole / "val").crops == 1
    tokenizer = Tokenizer.from_pretrained(folder / "model")
    views = open_crops(PhotosConfig(size=32, count=100, val_count=16), "train", "ten", 1.25)
    for sample, crop in ((0, 0), (2, 6), (6, 9)):
        view = views[10 * sample + crop]
        indices, label = cache.row(sample, crop)
        assert torch.equal(indices, tokenizer.encode(view.pixels[None].float() / 255).indices[0])
        assert label == view.label
    torn = tmp_path / "torn"
    shutil.copytree(whole, torn)
    rows = np.load(torn / "train" / "tokens.npy", mmap_mode="r+")
    rows[33:] = 0  # the fourth crop of the fourth sample
    rows.flush()
    change_meta(torn / "train", written=33)
    run(tree, "torn")
    for name in ("tokens.npy", "labels.npy", "meta.json"):
        assert (torn / "train" / name).read_bytes() == (whole / "train" / name).read_bytes()


def test_a_cache_of_a_folder_keeps_the_names_of_its_files(run, tmp_path):
    tokenizer = Tokenizer(validate(TokenizerConfig, TINY["task"]["tokenizer"]))
    tokenizer.save_pretrained(tmp_path / "model")
    names = ["a/one.png", "a/two.png", "b/three.jpg"]
    for name in names:
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 32), "red").save(tmp_path / "images" / name)
    place = str(tmp_path / "images")
    tree = cache_tree(tmp_path / "model", limit=2)
    tree["task"] |= {"tokenizer": str(tmp_path / "model"), "crops": 2}
    tree["data"] = {"kind": "folder", "path": place, "val_path": place, "size": 32}
    tokens = run(tree, "tokens")
    assert TokenCache(tokens / "train").names == ("a/one.png", "a/two.png")
    assert TokenCache(tokens / "val").names == tuple(names)


@pytest.mark.slow
def test_two_processes_write_the_same_cache(run, tmp_path, write):
    """Also the rest of a cache that one process left, though the ranks get unequal shares."""
    folder = run(TINY, "tokenizer", steps=4)
    tree = cache_tree(folder, limit=7)  # 70 rows: batches of 20, 20, 20, 10
    tree["task"] |= {"crops": "ten"}
    whole = run(tree, "one")
    torn = tmp_path / "two"
    shutil.copytree(whole, torn)
    rows = np.load(torn / "train" / "tokens.npy", mmap_mode="r+")
    rows[20:] = 0
    rows.flush()
    change_meta(torn / "train", written=20)
    shutil.rmtree(torn / "val")
    done = command(write(tree), f"out={torn}", processes=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("tokens are cached in") == 1
    for split in ("train", "val"):
        for name in ("tokens.npy", "labels.npy", "meta.json"):
            one, two = (path / split / name for path in (whole, torn))
            assert one.read_bytes() == two.read_bytes(), (split, name)


def test_a_cache_is_written_on_one_machine(monkeypatch):
    from vistok.train.jobs.base import on_one_machine

    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    on_one_machine(2)
    with pytest.raises(ConfigError, match=r"4 processes on several .*-m vistok\.train CONFIG"):
        on_one_machine(4)


def test_a_cache_of_another_tokenizer_is_not_mixed_in(run, cached):
    other = run(TINY, "other", steps=4, seed=3)
    with pytest.raises(DataError, match="tokenizer"):
        run(cache_tree(other), "tokens")


def test_a_continuous_tokenizer_is_cached_as_values(run, tmp_path):
    tree = copy.deepcopy(TINY["task"]["tokenizer"])
    tree["quantizer"] = {"kind": "kl", "dim": 3}
    Tokenizer(validate(TokenizerConfig, tree)).save_pretrained(tmp_path / "vae")
    folder = run(cache_tree(tmp_path / "vae", limit=9), "values")
    cache, tokenizer = TokenCache(folder / "train"), Tokenizer.from_pretrained(tmp_path / "vae")
    assert (cache.spec.vocab, cache.spec.dim, len(cache)) == ((), 3, 9)
    data = build(validate(PhotosConfig, TINY["data"])).open("train")
    pixels = torch.stack([data[i].pixels for i in range(9)]).float() / 255
    expected = tokenizer.encode(pixels).values
    assert torch.equal(torch.stack([cache.row(i)[0] for i in range(9)]), expected)


def test_a_cache_of_images_of_another_size_is_one_line(run, cached, fails):
    tree = cache_tree(cached[0])
    with fails(ConfigError, "images of 16x16 pixels; .* images of 32x32 .*: set data.size=32"):
        run({**tree, "data": {**tree["data"], "size": 16}}, "small")


def test_tokens_of_clips(run, fails):
    """A tokenizer of clips caches clips, and neither media is taken for the other."""
    tree = copy.deepcopy(TINY)
    tree["task"]["tokenizer"]["frames"] = 2
    for part in ("encoder", "decoder"):
        tree["task"]["tokenizer"][part]["patches"] = {"size": 8, "frames": 2}
    tree["data"]["frames"] = 2
    folder = run(tree, "clips", steps=4)
    images = cache_tree(folder, limit=6)
    with fails(ConfigError, "gives images of 32x32 pixels; this tokenizer takes clips of 2 frames"):
        run(images, "refused")
    wanted = copy.deepcopy(images)
    wanted["data"]["frames"] = 2
    cache = TokenCache(run(wanted, "tokens") / "train")
    tokenizer = Tokenizer.from_pretrained(folder / "model")
    data = build(PhotosConfig(**{k: v for k, v in wanted["data"].items() if k != "kind"}))
    pixels = data.open("train", augment=False)[3].pixels[None].float() / 255
    assert torch.equal(tokenizer.encode(pixels).indices[0], cache.row(3)[0])
