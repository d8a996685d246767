"""RobusTok's training on two processes and after a resume: semantic InfoNCE over the global batch,
DINO discriminator with augmentation, perturbation, an l2 codebook that gradients train."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.support.training import TINY, command, lines, rewound

pytestmark = pytest.mark.slow

NETWORK = {"kind": "vit", "network": "vit", "weights": "random", "image_size": 16, "patch": 8}
NETWORK |= {"width": 16, "depth": 2, "heads": 2}
FILES = ("tokenizer", "ema.tokenizer", "discriminator", "optimizer.tokenizer")


def tree() -> dict:
    made = copy.deepcopy(TINY)
    tokenizer = made["task"]["tokenizer"]
    for part in ("encoder", "decoder"):
        # A bias of keys has no gradient but rounding noise, which Adam would blow up.
        tokenizer[part]["transformer"]["bias"] = False
    tokenizer["quantizer"] = {"kind": "vq", "codebook_size": 16, "dim": 4, "init": "normal"}
    perturbed = {"rate": 0.8, "proportion": 0.5, "neighbours": 4, "anneal": None}
    tokenizer["regularizers"] = [{"kind": "latent_perturbation", **perturbed}]
    network = {name: value for name, value in NETWORK.items() if name != "kind"}
    made["task"]["losses"] = [
        {"kind": "reconstruction", "l2": 1.0},
        {
            "kind": "alignment",
            "name": "semantic",
            "network": NETWORK,
            "features": "pooled",
            "student": "quantized",
            "how": "infonce",
            "through": "encoder.proj",
            "weight": 0.1,
        },
        {
            "kind": "adversarial",
            "start": 3,
            "discriminator_start": 2,
            "lecam": 0.001,
            "augment": {},
            "blur_steps": 3,
            # Groups that do not span processes: 4 of the 8 images of each of two.
            "discriminator": {
                "kind": "dino",
                "network": network,
                "readouts": [0, 2],
                "group": 4,
            },
        },
    ]
    made |= {"batch_size": 16, "optimizer": {"kind": "adamw", "lr": 1e-3, "eps": 1e-4}}
    return made


def launch(folder: Path, processes: int, trees: dict[str, dict]) -> None:
    files = []
    for name, given in trees.items():
        files.append(folder / f"{name}.{processes}.yaml")
        files[-1].write_text(yaml.safe_dump(given | {"out": str(folder / name)}), "utf-8")
    done = command(*files, processes=processes, module="tests.support.launched")
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("semantic")
    launch(folder, 1, {"one": tree()})
    rewound(folder / "one", "resumed")
    sharded = tree() | {"sharding": "full"}
    launch(folder, 2, {"two": tree(), "sharded": sharded})
    rewound(folder / "two", "resumed-two")
    launch(folder, 1, {"resumed": tree()})
    launch(folder, 2, {"resumed-two": tree()})
    return folder


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(max((folder / "checkpoints").iterdir()) / f"{name}.safetensors")


def farthest(a: dict, b: dict) -> float:
    assert a.keys() == b.keys()
    return max((a[key].double() - b[key].double()).abs().max().item() for key in a)


@pytest.mark.parametrize("many", ["two", "sharded"])
def test_two_processes_train_like_one(runs, many):
    worlds = [
        json.loads((max((runs / name / "checkpoints").iterdir()) / "state.json").read_text())
        for name in ("one", many)
    ]
    assert [world["world"] for world in worlds] == [1, 2]
    one, two = lines(runs / "one"), lines(runs / many)
    assert len(one) == len(two) == 12
    for a, b in zip(one, two, strict=True):
        for name in ("loss", "semantic_alignment"):
            assert abs(a[name] - b[name]) < 1e-5, (a["step"], name)
    assert {"adversarial", "lecam"} <= one[-1].keys()
    for file in FILES:
        assert farthest(weights(runs / "one", file), weights(runs / many, file)) < 1e-5, file


@pytest.mark.parametrize(("whole", "again"), [("one", "resumed"), ("two", "resumed-two")])
def test_a_resumed_run_is_equal_to_the_bit(runs, whole, again):
    for file in FILES:
        a, b = weights(runs / whole, file), weights(runs / again, file)
        assert farthest(a, b) == 0, file
    vectors = {name for name in weights(runs / whole, "discriminator") if name.endswith("_u")}
    assert vectors  # the singular vectors of spectral norm are among them
    moved = load_file(runs / whole / "checkpoints/step_00000004/discriminator.safetensors")
    assert farthest(moved, weights(runs / whole, "discriminator")) > 1e-4
