"""Training classifiers, and training on imperfect folders."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from tests.support.training import ROOT, TINY, lines
from vistok.data import DataError

DATA = Path(os.environ.get("VISTOK_DATA_DIR", ROOT / "../shared/data"))


@pytest.fixture
def images(tmp_path):
    """Two classes of eight flat images each: red and blue, easy to tell apart."""
    for name, color in (("blue", (20, 30, 200)), ("red", (210, 30, 20))):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(8):
            image = Image.new("RGB", (40, 32), tuple(c + i for c in color))
            image.save(tmp_path / "images" / name / f"{i}.png")
    return tmp_path / "images"


def test_a_classifier_learns_a_folder(run, images):
    folder = run(
        {
            "name": "classifier",
            "task": {
                "kind": "classifier",
                "network": {"kind": "resnet9", "widths": [8, 8, 8, 8], "classes": 2},
            },
            "data": {"kind": "folder", "path": str(images), "val_path": str(images)},
            "steps": 30,
            "batch_size": 8,
            "optimizer": {"kind": "sgd", "lr": 0.05},
            "ema": None,
            "grid_every": 0,
            "trackers": [],
        }
    )
    assert lines(folder, "val")[-1]["accuracy"] == 1.0


def test_batch_norm_says_where_it_does_not_fit(run, images, monkeypatch):
    tree = {
        "task": {"kind": "classifier", "network": {"kind": "resnet9", "classes": 2}},
        "data": {"kind": "folder", "path": str(images), "val_path": str(images)},
    }
    with pytest.raises(ValueError, match=r"batch norm.*ema=null"):
        run(tree)
    from vistok.train.parallel.wrap import share_batch_norm

    two = SimpleNamespace(num_processes=2, device=torch.device("cpu"))
    with pytest.raises(ValueError, match="batch norm"):
        share_batch_norm("network", torch.nn.BatchNorm2d(3), two)


def test_a_classifier_needs_data(run):
    with pytest.raises(ValueError, match="data: missing"):
        run({"task": {"kind": "classifier"}})


def test_a_wrong_number_of_classes_is_one_line(run, images):
    tree = {
        "task": {"kind": "classifier"},
        "data": {"kind": "folder", "path": str(images), "val_path": str(images)},
    }
    with pytest.raises(ValueError, match=r"classes: got 10; the data has 2"):
        run(tree)


def test_an_unlabeled_image_is_one_line(run, images, capsys):
    labeled = shutil.copytree(images, images.parent / "labeled")
    Image.new("RGB", (40, 32)).save(images / "loose.png")
    tree = {
        "task": {
            "kind": "classifier",
            "network": {"kind": "resnet9", "widths": [8] * 4, "classes": 2},
        },
        "data": {"kind": "folder", "path": str(images), "val_path": str(images / "red")},
        "ema": None,
        "batch_size": 17,
    }
    with pytest.raises(ValueError, match="data: sample 8 has no label, and a classifier"):
        run(tree, steps=3, warmup=0)
    folders = {"path": str(labeled), "val_path": str(images)}
    run({**tree, "data": {"kind": "folder", **folders}}, "looked", steps=3, warmup=0)
    assert "validation failed (data: sample 8 has no label, and a" in capsys.readouterr().out


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


def test_one_broken_image_is_counted_and_named_not_fatal(run, images, caplog):
    (images / "red" / "broken.jpg").write_bytes(b"not an image")
    data = {"kind": "folder", "path": str(images), "val_path": str(images / "blue")}
    folder = run({**TINY, "data": {**data, "size": 32}}, max_bad_share=0.5, validate_limit=2)
    noted = [json.loads(line) for line in (folder / "quarantine.jsonl").read_text().splitlines()]
    assert len(noted) == 1 and "broken.jpg" in noted[0]["name"] and noted[0]["reason"]
    assert sum("broken.jpg" in message for message in caplog.messages) == 1
    assert len(lines(folder)) == 12


def test_too_many_broken_images_stop_training(run, images):
    for i in range(30):
        (images / "red" / f"broken{i}.jpg").write_bytes(b"not an image")
    data = {"kind": "folder", "path": str(images), "val_path": str(images / "blue")}
    with pytest.raises(DataError, match=r"quarantine"):
        run({**TINY, "data": {**data, "size": 32}}, steps=400, save_every=0)
