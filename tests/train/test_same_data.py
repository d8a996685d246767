"""Training says where its validation data are training data."""

from __future__ import annotations

import numpy as np
from PIL import Image

from tests.support.training import TINY


def test_a_run_says_that_it_validates_on_training_images(run, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    for number in range(4):
        noise = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "images" / f"{number}.png")
    place = str(tmp_path / "images")
    data = {"kind": "folder", "path": place, "val_path": place, "size": 32}
    tree = {**TINY, "data": data, "batch_size": 4, "save_every": 0}
    run(tree, "same", steps=3)
    said = "validation says little about unseen data: 4 of 4 validation files are training files"
    assert capsys.readouterr().out.count(said) == 1
    run({**tree, "data": TINY["data"]}, "views", steps=3)
    assert "unseen data" not in capsys.readouterr().out
