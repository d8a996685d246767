"""rFID and its companions on tokenizers whose numbers are known."""

import pytest
import torch

from tests.support.eval_tokenizers import PixelTokenizer
from vistok.data.batch import to_uint8
from vistok.eval.images import data_name


def values(rows):
    return {(row.metric, row.length): row.value for row in rows}


def test_uint8_returns_to_itself_and_halves_go_up():
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(every.float() / 255), every)
    half = torch.tensor([0.5, 1.5, 254.5, -3.0, 300.0]) / 255
    assert to_uint8(half).tolist() == [1, 2, 255, 0, 255]


def test_identity_has_no_distance(context, measure):
    rows = measure(context(PixelTokenizer(8)), "rfid")
    by = values(rows)
    assert by["rFID", 64] < 1e-3
    assert by["SSIM", 64] == pytest.approx(1)
    assert by["perceptual", 64] == pytest.approx(0, abs=1e-6)
    infinite = next(row for row in rows if row.metric == "PSNR")
    assert infinite.value is None and "inf" in infinite.note
    assert by["bits/image", 64] == 64 * 24
    assert ("codebook-usage", 64) not in by and ("codebook-factor-usage", 64) in by


def test_rows_of_a_flexible_tokenizer(context, measure, make_tokenizer):
    found = context(make_tokenizer("fsq"))
    rows = measure(found, "rfid")
    again = measure(context(make_tokenizer("fsq"), batch=7), "rfid")
    by = values(rows)
    for metric in ("rFID", "PSNR", "PSNR-mean", "SSIM", "perceptual", "bytes/image"):
        assert [length for name, length in by if name == metric] == [1, 2, 4]
    assert [by["bits/image", k] for k in (1, 2, 4)] == [4, 8, 16]
    assert [by["bytes/image", k] for k in (1, 2, 4)] == [8, 8, 8]  # 7 + 1, 7 + 1, 6 + 2
    for key, value in values(again).items():
        assert value == pytest.approx(by[key], rel=1e-5), key
    row = rows[0]
    assert row.display == "rFID[vistok-cnn, photos]" and row.count == 24
    assert len(row.reference.manifest) == 64 and len(row.features.sha256) == 64
    assert row.crop and row.filter == "bicubic" and row.size == (8, 8) and row.precision == "fp32"
    assert "biased" in row.note  # 24 images for 320 features
    assert len(found.facts["codebook"]["position_entropy"]) == 4
    assert found.facts["codebook"]["sorted_counts"][0][0] == 0


def test_data_are_called_by_their_folder():
    assert data_name({"kind": "photos", "source": "views of seven photographs"}) == "photos"
    assert data_name({"kind": "parquet", "source": "/data/cifar10"}) == "cifar10"
