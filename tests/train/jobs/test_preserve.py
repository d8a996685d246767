"""Redrawing a share of the tokens: what is kept, and that interrupted or not, on any number of
processes, it gives the same files."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.pairs import change_record
from tests.support.training import TINY, cache_tree, command
from vistok.config import ConfigError, read_yaml, validate
from vistok.config.registry import build
from vistok.core.records import Batch
from vistok.data import DataError, PairsConfig, PhotosConfig
from vistok.data.batch import to_uint8
from vistok.data.pairs import INDEX, Pairs
from vistok.generators import load_generator
from vistok.tokenizer import Tokenizer
from vistok.train.config import TrainConfig
from vistok.train.jobs.preserve import PreserveConfig, Redrawing, chosen
from vistok.train.jobs.run_data import with_run_data

FILES = ("pairs.json", "index.jsonl")
GENERATOR = {"kind": "autoregressive", "transformer": {"width": 16, "depth": 1, "heads": 2}}


@pytest.fixture
def trained(run):
    """(tokenizer run, generator run)."""
    tokenizer = run(TINY, "tokenizer", steps=4)
    tokens = run(cache_tree(tokenizer), "tokens")
    tree = {
        "task": {"kind": "generator", "generator": GENERATOR},
        "data": {"kind": "tokens", "path": f"{tokens}/train", "val_path": f"{tokens}/val"},
        "steps": 3,
        "batch_size": 8,
        "trackers": [],
    }
    return tokenizer, run(tree, "generator")


def preserve_tree(generator, **task) -> dict:
    task = {"kind": "preserve", "generator": str(generator), "count": 11, "val_count": 3, **task}
    return {"name": "pairs", "task": task, "data": TINY["data"], "batch_size": 4}


def contents(folder) -> dict[str, bytes]:
    found = [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")]
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


def test_kept_tokens_are_the_images_and_others_are_sampled_after_them(run, trained):
    folder, generator = trained
    made = run(preserve_tree(generator, sigma=0.5), "pairs", seed=3)
    pairs = Pairs(made / "train")
    assert len(pairs) == 11 and len(Pairs(made / "val")) == 3
    assert pairs.facts["sigma"] == 0.5 and pairs.facts["seed"] == 3
    tokenizer = Tokenizer.from_pretrained(folder / "model")
    model = load_generator(generator / "model")
    assert pairs.facts["tokenizer"] == model.tokenizer
    assert model.tokenizer["codes_sha256"] == tokenizer.codes_sha256()
    photos = build(validate(PhotosConfig, TINY["data"])).open("train")
    assert [row.index for row in pairs.rows] == chosen(100, 11, 3)
    redrawing = Redrawing.open(PreserveConfig(generator=str(generator), sigma=0.5), str(folder), 3)
    for row in (pairs.rows[0], pairs.rows[10]):
        sample = photos[row.index]
        assert (row.original, row.label) == (sample.name, sample.label)
        assert row.file.startswith(f"{photos.classes[sample.label]}/")
        pixels, index = sample.pixels[None].float() / 255, torch.tensor([row.index])
        true = tokenizer.encode(pixels)
        kept = redrawing.kept(index, true.spec.length)
        batch = Batch(index, label=torch.tensor([sample.label]))
        condition = replace(model.condition_of(batch), known=true, known_mask=kept)
        mixed = model.sample(condition, index=index, seed=3)
        assert torch.equal(mixed.indices[kept], true.indices[kept])
        stored = np.asarray(Image.open(io.BytesIO((made / "train" / row.file).read_bytes())))
        expected = to_uint8(tokenizer.decode(mixed))[0].permute(1, 2, 0).numpy()
        # Samples of one batch and of a batch of one may differ by rounding.
        assert np.abs(stored.astype(int) - expected).max() <= 1


def test_sigma_is_the_share_that_is_kept(run, trained):
    folder, generator = trained
    redrawing = Redrawing.open(PreserveConfig(generator=str(generator)), None, 0)
    assert redrawing.identity.name == str(folder)  # as the generator names it
    kept = redrawing.kept(torch.arange(4000), 16).float().mean()
    assert abs(float(kept) - 0.7) < 0.006  # three standard deviations
    alone, among = redrawing.kept(torch.tensor([7]), 16), redrawing.kept(torch.arange(9), 16)
    assert torch.equal(alone[0], among[7])
    tokenizer = Tokenizer.from_pretrained(folder / "model")
    whole = run(preserve_tree(generator, sigma=1.0), "whole")
    pairs = build(PairsConfig(path=str(whole / "train"))).open("train")
    target = torch.stack([pairs[i].target for i in range(4)]).float() / 255
    made = torch.stack([pairs[i].pixels for i in range(4)])
    assert torch.equal(made, to_uint8(tokenizer.decode(tokenizer.encode(target))))


def test_an_interrupted_job_goes_on_where_it_stopped(run, trained, tmp_path):
    _, generator = trained
    tree = preserve_tree(generator)
    whole = contents(run(tree, "pairs"))
    assert set(FILES) <= {name.split("/")[-1] for name in whole}
    torn = tmp_path / "torn"
    shutil.copytree(tmp_path / "pairs", torn)
    lines = (torn / "train" / INDEX).read_text().splitlines(keepends=True)
    (torn / "train" / INDEX).write_text("".join(lines[:6]) + lines[6][:20])  # a kill in a batch
    for line in lines[5:]:  # whose images may be there, half or not at all
        (torn / "train" / json.loads(line)["file"]).write_bytes(b"half")
    shutil.rmtree(torn / "val")
    change_record(torn / "train", index=None)
    run(tree, "torn")
    assert contents(torn) == {**whole, "config.yaml": (torn / "config.yaml").read_bytes()}
    before = (torn / "train" / INDEX).stat().st_mtime_ns
    run(tree, "torn")  # finished ones are left alone
    assert (torn / "train" / INDEX).stat().st_mtime_ns == before
    with pytest.raises(DataError, match=r"begun with sigma=0\.7, now sigma=0\.2"):
        run(preserve_tree(generator, sigma=0.2), "torn")


@pytest.mark.slow
def test_two_processes_write_the_same_files(run, trained, tmp_path, write):
    _, generator = trained
    tree = preserve_tree(generator)
    whole = contents(run(tree, "pairs"))
    done = command(write(tree), f"out={tmp_path / 'two'}", processes=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("pairs are in") == 1
    found = contents(tmp_path / "two")
    assert {k: v for k, v in found.items() if k != "config.yaml"} == {
        k: v for k, v in whole.items() if k != "config.yaml"
    }


def test_the_data_are_those_of_the_tokenizers_run(trained):
    folder, generator = trained
    tree = {"task": {"kind": "preserve", "generator": str(generator)}}
    with_data, path = with_run_data(tree)
    assert path is not None and path.parent == folder
    assert validate(TrainConfig, with_data).data == validate(PhotosConfig, TINY["data"])


def test_what_does_not_go_together_is_one_line(run, trained, fails):
    folder, generator = trained
    other = run(TINY, "other", steps=4, seed=5)
    with fails(ConfigError, "task.tokenizer: .*other is not the tokenizer .* other weights"):
        run(preserve_tree(generator, tokenizer=str(other)), "a")
    with fails(ConfigError, "data: gives images of 16x16 pixels"):
        run({**preserve_tree(generator), "data": {**TINY["data"], "size": 16}}, "b")
    with fails(ValueError, "not a generator but a tokenizer"):
        run(preserve_tree(folder), "c")
    with fails(ValueError, "sampling.*tempreature"):
        run(preserve_tree(generator, sampling={"tempreature": 2}), "d")


def test_the_shipped_job_is_a_config():
    config = validate(TrainConfig, read_yaml("jobs/preserve"))
    assert config.task == PreserveConfig(generator=config.task.generator)
