"""rFID under both filters in one command: own rows and names, equal ones said once."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from PIL import Image

from vistok.eval.config import EvalConfig
from vistok.eval.measure import evaluate
from vistok.eval.protocols.base import PROTOCOLS
from vistok.eval.results.compare import differences


@pytest.fixture
def stored(tmp_path, runs):
    """stored(side, **data) -> the tokenizer's run, whose data are ten files of that side."""

    def make(side, **data):
        folder = tmp_path / f"images{side}"
        folder.mkdir()
        pixels = np.random.default_rng(0).integers(0, 256, (10, side, side, 3), np.uint8)
        for number, one in enumerate(pixels):
            Image.fromarray(one).save(folder / f"{number}.png")
        config = {"kind": "folder", "path": str(folder), "val_path": str(folder), "size": 8}
        tree = {"name": "tok", "data": {**config, **data}}
        (runs[0] / "config.yaml").write_text(yaml.safe_dump(tree))
        return runs[0]

    return make


def asked(run, filter="both", **rest):
    return evaluate([run], EvalConfig(protocols="rfid", rfid={"filter": filter}, **rest))


@pytest.mark.parametrize("own", ["bilinear", "lanczos"])
def test_both_have_the_numbers_of_either(stored, own, tmp_path):
    run, cache = stored(21, filter=own), str(tmp_path / "cache")
    results = asked(run, cache=cache)
    assert results.facts["skipped"] == []
    for metric in ("rFID", "PSNR"):
        rows = [row for row in results.find(metric) if row.length == 4]
        names = [row.filter for row in rows]
        first = own if own != "lanczos" else "bilinear"
        assert names == [first, {"bilinear": "bicubic"}.get(first, "bilinear")]
        assert [row.preset for row in rows] == names
        assert len({row.display for row in rows}) == 2  # never in one column
        assert differences(*rows) == ("filter",)
        for row in rows:
            data = {"data": {"filter": row.filter}, "protocols": "rfid"}
            alone = evaluate([run], EvalConfig(**data)).find(metric, length=4)[0]
            assert alone.value == row.value and differences(alone, row) == ()
        assert rows[0].value != rows[1].value
    assert asked(run, cache=cache).rows == results.rows


def test_images_of_the_wanted_size_are_measured_once(stored):
    results = asked(stored(8))
    assert {row.filter for row in results.rows} == {"bicubic"}
    (said,) = results.facts["skipped"]
    assert said["protocol"] == "rFID filter=bilinear"
    assert "no image is resampled: all are stored at 8x8" in said["reason"]


def test_what_has_no_such_filter_is_said(stored, runs, fails):
    results = asked(stored(21, crop="adm"))
    assert {row.filter for row in results.rows} == {"bicubic"}
    (said,) = results.facts["skipped"]
    assert (said["protocol"], said["reason"]) == (
        "rFID filter=bilinear",
        "crop=adm is bicubic by definition",
    )
    with fails(ValueError, "rfid.filter=bilinear: crop=adm is bicubic"):
        asked(runs[0], "bilinear")
    photos = asked(runs[0], data={"kind": "photos", "size": 8, "val_count": 12})
    (said,) = photos.facts["skipped"]
    assert "data.kind=photos has no filter to choose" in said["reason"] and photos.find("rFID")
    assert {row.preset for row in photos.rows} == {""}
    with fails(ValueError, "reference_rfid=true compares with a file of one filter"):
        files = {"reference": "f", "reference_rfid": True}
        PROTOCOLS["rfid"].jobs(None, EvalConfig(rfid={"filter": "both"}, **files))
