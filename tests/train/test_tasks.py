"""Tasks besides the tokenizer: cache, generator, classifier; and training on imperfect folders."""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from tests.train.conftest import ROOT, TINY, command, lines, rewound
from vistok.config import ConfigError, validate
from vistok.config.registry import build
from vistok.core.records import Condition
from vistok.data import DataError, PhotosConfig
from vistok.data.token_cache import TokenCache
from vistok.generators import load_generator
from vistok.tokenizer import Tokenizer, TokenizerConfig

DATA = Path(os.environ.get("VISTOK_DATA_DIR", ROOT / "../shared/data"))

GENERATOR = {
    "name": "generator",
    "task": {
        "kind": "generator",
        "generator": {
            "kind": "autoregressive",
            "transformer": {"width": 32, "depth": 1, "heads": 2},
        },
    },
    "steps": 40,
    "batch_size": 16,
    "optimizer": {"kind": "adamw", "lr": 1e-2},
    "warmup": 4,
    "log_every": 1,
    "grid_every": 0,
    "trackers": [],
}


def cache_tree(tokenizer: Path, limit: int = 48) -> dict:
    return {
        "name": "tokens",
        "task": {"kind": "cache", "tokenizer": str(tokenizer), "limit": limit},
        "data": TINY["data"],
        "batch_size": 20,
    }


@pytest.fixture
def cached(run):
    """(tokenizer run, cache folder)."""
    tokenizer = run(TINY, "tokenizer", steps=4)
    return tokenizer, run(cache_tree(tokenizer), "tokens")


def test_a_cache_holds_what_the_tokenizer_says(cached):
    folder, tokens = cached
    tokenizer = Tokenizer.from_pretrained(folder / "model")
    pictures = build(PhotosConfig(size=32, count=100, val_count=16)).open("train")
    cache = TokenCache(tokens / "train")
    assert len(cache) == 48
    for i in (0, 19, 20, 47):
        expected = tokenizer.encode(pictures[i].pixels[None].float() / 255).indices[0]
        indices, label = cache.row(i)
        assert torch.equal(indices, expected) and label == pictures[i].label


def test_an_interrupted_cache_goes_on_where_it_stopped(run, cached):
    folder, tokens = cached
    whole = np.load(tokens / "train" / "tokens.npy")
    meta = json.loads((tokens / "train" / "meta.json").read_text())
    torn = np.load(tokens / "train" / "tokens.npy", mmap_mode="r+")
    torn[33:] = 0  # rows that a kill lost
    torn.flush()
    (tokens / "train" / "meta.json").write_text(json.dumps({**meta, "written": 33}))
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
    meta = json.loads((torn / "train" / "meta.json").read_text())
    rows = np.load(torn / "train" / "tokens.npy", mmap_mode="r+")
    rows[33:] = 0  # the fourth crop of the fourth sample
    rows.flush()
    (torn / "train" / "meta.json").write_text(json.dumps({**meta, "written": 33}))
    run(tree, "torn")
    for name in ("tokens.npy", "labels.npy", "meta.json"):
        assert (torn / "train" / name).read_bytes() == (whole / "train" / name).read_bytes()


@pytest.mark.slow
def test_two_processes_write_the_same_cache(run, tmp_path, write):
    """Also the rest of a cache that one process left, though the ranks get unequal shares."""
    folder = run(TINY, "tokenizer", steps=4)
    tree = cache_tree(folder, limit=7)  # 70 rows: batches of 20, 20, 20, 10
    tree["task"] |= {"crops": "ten"}
    whole = run(tree, "one")
    torn = tmp_path / "two"
    shutil.copytree(whole, torn)
    meta = json.loads((torn / "train" / "meta.json").read_text())
    rows = np.load(torn / "train" / "tokens.npy", mmap_mode="r+")
    rows[20:] = 0
    rows.flush()
    (torn / "train" / "meta.json").write_text(json.dumps({**meta, "written": 20}))
    shutil.rmtree(torn / "val")
    done = command(write(tree), f"out={torn}", processes=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("tokens are cached in") == 1
    for split in ("train", "val"):
        for name in ("tokens.npy", "labels.npy", "meta.json"):
            one, two = (path / split / name for path in (whole, torn))
            assert one.read_bytes() == two.read_bytes(), (split, name)


def test_a_cache_is_written_on_one_machine(monkeypatch):
    from vistok.train.tasks.cache import _on_one_machine

    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    _on_one_machine(2)
    with pytest.raises(ConfigError, match="4 processes on several machines"):
        _on_one_machine(4)


def test_a_cache_of_another_tokenizer_is_not_mixed_in(run, cached):
    other = run(TINY, "other", steps=4, seed=3)
    with pytest.raises(DataError, match="tokenizer"):
        run(cache_tree(other), "tokens")


def test_a_generator_learns_and_remembers_its_tokenizer(run, cached):
    folder, tokens = cached
    data = {"kind": "tokens", "path": f"{tokens}/train", "val_path": f"{tokens}/val"}
    trained = run({**GENERATOR, "data": data}, "generator")
    rows = lines(trained)
    assert rows[0]["loss"] == pytest.approx(np.log(25), rel=1e-3)  # a zero head knows nothing
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]
    assert lines(trained, "val")[-1]["bits_per_image"] > 0
    generator = load_generator(trained / "model")
    assert generator.classes[0] == "astronaut"
    from vistok.storage.weights import sha256

    assert generator.tokenizer["sha256"] == sha256(folder / "model" / "model.safetensors")
    drawn = generator.sample(
        Condition(label=torch.tensor([0, 6])),
        index=torch.arange(2),
        length=2,
        sampling={"guidance": 2.0},
    )
    pixels = Tokenizer.from_pretrained(folder / "model").decode(drawn)
    assert pixels.shape == (2, 3, 32, 32)


def test_a_generator_resumes_exactly(run, cached):
    _, tokens = cached
    data = {"kind": "tokens", "path": f"{tokens}/train", "val_path": f"{tokens}/val"}
    tree = {**GENERATOR, "data": data, "steps": 12, "save_every": 4, "keep_last": 9}
    whole = run(tree, "whole")
    stopped = rewound(whole)
    run(tree, "stopped")
    name = "checkpoints/step_00000012/generator.safetensors"
    assert (whole / name).read_bytes() == (stopped / name).read_bytes()


def test_a_generator_may_ignore_the_classes(run, cached):
    from vistok.eval.protocols.gfid import labels_of

    _, tokens = cached
    tree = {**GENERATOR, "data": {"kind": "tokens", "path": f"{tokens}/train", "val_share": 0.2}}
    task = {
        "kind": "generator",
        "generator": GENERATOR["task"]["generator"] | {"condition": {"classes": 0}},
    }
    generator = load_generator(run({**tree, "task": task}, "free", steps=5) / "model")
    assert generator.classes == () and labels_of(generator, torch.arange(4)) is None
    assert generator.sample(index=torch.arange(3)).indices.shape == (3, 4, 1)
    task["generator"]["condition"] = {"classes": 3}
    with pytest.raises(ValueError, match="classes: got 3; the tokens have 7"):
        run({**tree, "task": task}, "three")


@pytest.fixture
def pictures(tmp_path):
    """Two classes of eight flat images each: red and blue, easy to tell apart."""
    for name, color in (("blue", (20, 30, 200)), ("red", (210, 30, 20))):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(8):
            image = Image.new("RGB", (40, 32), tuple(c + i for c in color))
            image.save(tmp_path / "pictures" / name / f"{i}.png")
    return tmp_path / "pictures"


def test_a_classifier_learns_a_folder(run, pictures):
    folder = run(
        {
            "name": "classifier",
            "task": {
                "kind": "classifier",
                "network": {"kind": "resnet9", "widths": [8, 8, 8, 8], "classes": 2},
            },
            "data": {"kind": "folder", "path": str(pictures), "val_path": str(pictures)},
            "steps": 30,
            "batch_size": 8,
            "optimizer": {"kind": "sgd", "lr": 0.05},
            "ema": None,
            "grid_every": 0,
            "trackers": [],
        }
    )
    assert lines(folder, "val")[-1]["accuracy"] == 1.0


def test_batch_norm_says_where_it_does_not_fit(run, pictures, monkeypatch):
    tree = {
        "task": {"kind": "classifier", "network": {"kind": "resnet9", "classes": 2}},
        "data": {"kind": "folder", "path": str(pictures), "val_path": str(pictures)},
    }
    with pytest.raises(ValueError, match=r"batch norm.*ema=null"):
        run(tree)
    from vistok.train.parallel import share_batch_norm

    two = SimpleNamespace(num_processes=2, device=torch.device("cpu"))
    with pytest.raises(ValueError, match="batch norm"):
        share_batch_norm("network", torch.nn.BatchNorm2d(3), two)


def test_a_classifier_needs_data(run):
    with pytest.raises(ValueError, match="data: missing"):
        run({"task": {"kind": "classifier"}})


def test_a_wrong_number_of_classes_is_one_line(run, pictures):
    tree = {
        "task": {"kind": "classifier"},
        "data": {"kind": "folder", "path": str(pictures), "val_path": str(pictures)},
    }
    with pytest.raises(ValueError, match=r"classes: got 10; the data has 2"):
        run(tree)


def test_one_broken_picture_is_counted_and_named_not_fatal(run, pictures, caplog):
    (pictures / "red" / "broken.jpg").write_bytes(b"not a image")
    data = {"kind": "folder", "path": str(pictures), "val_path": str(pictures / "blue")}
    folder = run({**TINY, "data": {**data, "size": 32}}, max_bad_share=0.5, validate_limit=2)
    noted = [json.loads(line) for line in (folder / "quarantine.jsonl").read_text().splitlines()]
    assert len(noted) == 1 and "broken.jpg" in noted[0]["name"] and noted[0]["reason"]
    assert sum("broken.jpg" in message for message in caplog.messages) == 1
    assert len(lines(folder)) == 12


def test_too_many_broken_pictures_stop_training(run, pictures):
    for i in range(30):
        (pictures / "red" / f"broken{i}.jpg").write_bytes(b"not a image")
    data = {"kind": "folder", "path": str(pictures), "val_path": str(pictures / "blue")}
    with pytest.raises(DataError, match=r"quarantine"):
        run({**TINY, "data": {**data, "size": 32}}, steps=400, save_every=0)


@pytest.mark.skipif(not (DATA / "cifar10").is_dir(), reason=f"no CIFAR-10 in {DATA}")
def test_cifar10_is_one_config_away(run):
    import yaml

    tree = yaml.safe_load((ROOT / "configs/quickstart/cifar10.yaml").read_text())
    tree["data"] |= {
        "train": f"{DATA}/cifar10/train-00000-*.parquet",
        "val": f"{DATA}/cifar10/test-*.parquet",
    }
    folder = run(tree, steps=120, warmup=10, log_every=20, trackers=[], validate_limit=64)
    rows = lines(folder)
    assert rows[-1]["loss"] < 0.75 * rows[0]["loss"]
    assert lines(folder, "val")[-1]["psnr"] > 13
    from vistok.eval.__main__ import evaluate

    report = folder / "report.html"
    args = [str(folder), f"report={report}", "limit=32", "pfid.mode=none"]
    result = CliRunner().invoke(evaluate, args)
    assert result.exit_code == 0, result.output
    assert "rFID[vistok-cnn, cifar10]" in report.read_text()


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
