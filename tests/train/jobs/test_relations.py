"""The job that clusters a frozen network's patch features."""

import pytest
import torch
from safetensors.torch import load_file

from vistok.config import ConfigError

TREE = {
    "name": "relations",
    "task": {
        "kind": "codebook_relations",
        "network": "vistok-cnn",
        "depth": 3,
        "codes": 12,
        "limit": 40,
        "patches": 10,
        "iterations": 4,
    },
    "data": {"kind": "photos", "size": 32, "count": 60, "val_count": 8},
    "batch_size": 16,
}


def test_it_writes_centers_and_their_cosines(run, capsys):
    found = load_file(run(TREE, "a") / "relations.safetensors")
    assert "(12 with features) of 400 patch features" in capsys.readouterr().out
    assert found["centers"].shape == (12, 128) and int(found["hits"].sum()) == 400
    units = torch.nn.functional.normalize(found["centers"], dim=1)
    torch.testing.assert_close(found["relations"], units @ units.T)
    again = load_file(run(TREE | {"batch_size": 7}, "b") / "relations.safetensors")
    torch.testing.assert_close(again["centers"], found["centers"], rtol=1e-4, atol=1e-4)


def test_too_few_features_are_one_line(run, fails):
    tree = TREE | {"task": TREE["task"] | {"limit": 1}}
    with fails(ConfigError, "task.codes=12, but there are 10 patch features; look at more"):
        run(tree, "c")
    with pytest.raises(ConfigError, match="data: missing"):
        run({k: v for k, v in TREE.items() if k != "data"}, "d")
