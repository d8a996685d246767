"""Training generators on cached tokens."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.training import ROOT, TINY, cache_tree, lines, rewound
from vistok.config import validate
from vistok.core.records import Condition
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
    from vistok.eval.protocols.generated import labels_of

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


def test_loose_images_train_without_a_class(run, tmp_path):
    images = DATA / "reported" / "folders" / "mixed"
    if not images.is_dir():
        pytest.skip(f"no {images}")
    tokenizer = Tokenizer(validate(TokenizerConfig, TINY["task"]["tokenizer"]))
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    folder = {"kind": "folder", "path": str(images), "val_share": 0.2, "size": 32}
    tokens = run({**cache_tree(tmp_path / "tokenizer", 99), "data": folder}, "tokens")
    labels = np.concatenate([np.load(tokens / split / "labels.npy") for split in ("train", "val")])
    assert [(labels == label).sum() for label in (0, 1, -1)] == [30, 30, 10]
    data = {"kind": "tokens", "path": f"{tokens}/train", "val_path": f"{tokens}/val"}
    trained = run({**GENERATOR, "data": data}, "generator", steps=6, validate_every=3)
    assert all(np.isfinite(row["loss"]) for row in lines(trained))
    assert all(np.isfinite(row["bits_per_image"]) for row in lines(trained, "val"))
    assert load_generator(trained / "model").classes == ("a", "b")
