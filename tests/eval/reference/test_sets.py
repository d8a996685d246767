"""All measures of decoded sets, on tokenizers whose numbers are known; several perceptual ones."""

from __future__ import annotations

import pytest
import torch

from tests.support.eval_tokenizers import PatchTokenizer, PixelTokenizer
from vistok.data.batch import to_uint8
from vistok.eval.config import EvalConfig
from vistok.eval.images import exact
from vistok.eval.jobs import do
from vistok.eval.measure import _perceptual_networks
from vistok.eval.protocols import rfid
from vistok.eval.reference.sets import METRICS, SetMeasures, wanted
from vistok.frozen import FeatureNetwork, Features


class Small(FeatureNetwork):
    """Colors of quarters: 12 features, 48 spatial ones, 3 logits."""

    dim, spatial_dim, classes = 12, 48, 3

    def __init__(self) -> None:
        super().__init__("small", "1" * 64)

    def look(self, pixels):
        x = pixels.float() / 255
        spatial = torch.nn.functional.adaptive_avg_pool2d(x, 4).flatten(1)
        return Features(
            torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1), spatial, 9 * x.mean((2, 3))
        )


@pytest.fixture
def small(context):
    """small(tokenizer, ...) -> a context whose network is `Small`."""

    def make(tokenizer, **rest):
        made = context(tokenizer, **rest)
        made.features = Small()
        return made

    return make


def found(context, metrics=METRICS, stored=50_000) -> dict:
    with exact():
        measures = SetMeasures(context, len(context.views), metrics, stored=stored)
        for batch in context.views.batches("test"):
            tokens = context.tokenizer.encode(batch.pixels)
            measures.update(to_uint8(context.tokenizer.decode(tokens)), batch.index)
        return {row.metric: row for row in measures.rows(length=7)}


NAMES = ("rFID", "sFID", "KID", "IS", "precision", "recall", "density", "coverage")


def test_identity(small):
    rows = found(small(PixelTokenizer(8)))
    assert tuple(rows) == NAMES
    assert rows["rFID"].value < 1e-6 and rows["sFID"].value < 1e-6
    # The unbiased estimate of a set against itself is below 0: pairs (i, i) count in one term.
    assert rows["KID"].value <= 0 and "subsets of 24" in rows["KID"].note
    assert [rows[name].value for name in ("precision", "recall", "coverage")] == [1, 1, 1]
    assert rows["density"].value >= 1 and 1 < rows["IS"].value < 3
    assert all(row.length == 7 and row.count == 24 for row in rows.values())
    assert all(row.features.name == "small" for row in rows.values())
    assert "k = 3" in rows["recall"].note and "k = 5" in rows["density"].note
    assert "biased upwards: 24 images for 48 features" in rows["sFID"].note


def test_damage_shows_in_each(small):
    clean, poor = found(small(PixelTokenizer(8))), found(small(PatchTokenizer(8, patch=8)))
    for name in ("rFID", "sFID", "KID"):
        assert poor[name].value > clean[name].value + 1e-4, name
    assert poor["recall"].value < clean["recall"].value


def test_batches_change_nothing(small):
    one, many = (found(small(PatchTokenizer(8), batch=size)) for size in (1, 24))
    for name in NAMES:
        assert one[name].value == pytest.approx(many[name].value, rel=1e-5, abs=1e-9), name


def test_real_images_are_looked_at_once(small, monkeypatch):
    made = small(PatchTokenizer(8))
    looks = []
    plain = Small.look
    monkeypatch.setattr(Small, "look", lambda self, x: looks.append(len(x)) or plain(self, x))
    found(made)
    assert sum(looks) == 2 * 24  # decoded and real
    found(made)
    assert sum(looks) == 3 * 24


def test_a_subset_is_said(small):
    rows = found(small(PatchTokenizer(8)), stored=15)
    for name in ("KID", "precision", "coverage"):
        assert rows[name].count == 15
        assert "a keyed subset (seed 0) of 15 of 24 images" in rows[name].note
    assert rows["rFID"].count == 24 and "subset" not in rows["rFID"].note
    same = found(small(PixelTokenizer(8)), stored=15)
    assert same["precision"].value == 1  # the same images on both sides


def test_what_a_network_lacks_is_said(context):
    made = context(PixelTokenizer(8))
    rows = found(made)
    assert "sFID" not in rows and rows["IS"].value > 1
    said = {"run": "tiny", "reason": "vistok-cnn gives no spatial features"}
    assert made.skipped == [{"protocol": "sFID", **said, "network": "vistok-cnn"}]


def test_names():
    assert wanted(("fid", "kid", "fid")) == ("fid", "kid")
    assert wanted("all") == wanted(("fid", "all")) == (*METRICS, "ms-ssim")
    with pytest.raises(ValueError, match="unknown metric 'fad'; valid: all, fid, sfid, kid"):
        wanted(("fid", "fad"))


def test_rfid_has_them_at_each_length(context, make_tokenizer):
    (job,) = rfid.RFID().jobs(None, EvalConfig(rfid={"metrics": "all"}))
    expected = {"metrics": (*METRICS, "ms-ssim"), "stored": 50_000, "filter": None}
    assert job.config.model_dump() == expected
    outcome = do(job, context(make_tokenizer("fsq")))
    for metric in ("rFID", "KID", "IS", "recall", "coverage", "bits/pixel"):
        lengths = [row.length for row in outcome.rows if row.metric == metric]
        assert lengths == [1, 2, 4], metric
    bits = {row.length: row.value for row in outcome.rows if row.metric == "bits/pixel"}
    assert bits == {1: 4 / 64, 2: 8 / 64, 4: 16 / 64}
    said = {one["protocol"]: one["reason"] for one in outcome.skipped}
    assert "sides of 176 pixels" in said["MS-SSIM"] and "SSIM" not in said
    assert len(outcome.skipped) == 2  # sFID once, not at each length


def test_ms_ssim_of_large_images(context, measure):
    rows = measure(context(PixelTokenizer(176), count=2), "rfid", metrics=("ms-ssim",))
    (row,) = [row for row in rows if row.metric == "MS-SSIM"]
    assert row.value == pytest.approx(1) and "rFID" not in {row.metric for row in rows}


def test_several_perceptual_networks(context, measure, perceptual):
    other = type(perceptual)()
    other.name = "lpips-like"
    made = context(PatchTokenizer(8))
    made.more_perceptual = (other,)
    rows = measure(made, "rfid")
    shown = {row.display: row.value for row in rows if row.metric in ("perceptual", "LPIPS")}
    assert list(shown) == ["perceptual[vistok-cnn, photos]", "LPIPS[lpips-like, photos]"]
    assert len(set(shown.values())) == 1
    assert _perceptual_networks(EvalConfig(perceptual=("none",))) == ()
    twice = EvalConfig(device="cpu", perceptual=("vistok-cnn", "vistok-cnn"))
    assert len(_perceptual_networks(twice)) == 1
