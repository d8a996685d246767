"""Linear probe: its taps, its baselines, and the same numbers for any batch."""

import pytest
import torch

from tests.support.eval_tokenizers import PatchTokenizer
from vistok.data import Dataset, Photos, PhotosConfig, Sample
from vistok.eval.images import Views
from vistok.eval.protocols import linear_probe as linear
from vistok.eval.reference.training_set import Picked


class Shades(Dataset):
    """Flat images: dark ones are class 0, bright ones class 1; `noise` has no class in it."""

    classes, size = ("dark", "bright"), (8, 8)

    def __init__(self, count, noise=False, labeled=True):
        self.count, self.noise, self.labeled = count, noise, labeled

    def __len__(self):
        return self.count

    def sample(self, index, epoch=0, seed=0):
        label = index % 2 if index % 3 else 0  # two thirds are dark
        generator = torch.Generator().manual_seed(index)
        spread = 256 if self.noise else 120
        value = int(torch.randint(spread, (), generator=generator))
        value += 0 if self.noise else 130 * label
        pixels = torch.full((3, 8, 8), value, dtype=torch.uint8)
        return Sample(index, pixels, label if self.labeled else -1)

    def record(self):
        return {"kind": "shades", "manifest": "0" * 64, "count": self.count}


@pytest.fixture
def run(measure):
    def make(context, data=None, train=None, batch=16):
        if data is not None:
            context.views = Views(data, batch)
        train = train or Shades(300)
        return measure(context, "linear_probe", lambda context: Views(train, context.batch))

    return make


def test_what_the_codes_say(context, run):
    rows = run(context(PatchTokenizer(8)), Shades(90))
    top1 = {row.point["tap"]: row.value for row in rows}
    assert set(top1) == {
        *("chance", "pixels", "latents/flat", "latents/mean", "codes/flat", "codes/mean"),
        "codes/histogram",
    }
    assert top1["chance"] == pytest.approx(2 / 3)
    for tap in ("pixels", "latents/mean", "codes/flat", "codes/histogram"):
        assert top1[tap] > 0.97, tap
    assert {row.metric for row in rows} == {"probe-top1"} and {row.count for row in rows} == {90}
    assert "300 training images" in rows[1].note and "L-BFGS" in rows[1].note


def test_noise_stays_at_chance(context, run):
    rows = run(context(PatchTokenizer(8)), Shades(300, noise=True), Shades(300, noise=True))
    top1 = {row.point["tap"]: row.value for row in rows}
    for tap in ("pixels", "latents/flat", "codes/mean"):
        assert top1[tap] < top1["chance"] + 0.05, tap


def test_the_encoders_own_features(context, run, make_tokenizer):
    rows = run(
        context(make_tokenizer("fsq")), train=Picked(Photos(PhotosConfig(size=8)).open("train"), 96)
    )
    taps = {row.point["tap"] for row in rows}
    assert {"encoder.patches/mean", "encoder.latents/mean", "codes/histogram"} <= taps


def test_batch_size_changes_nothing(context, run):
    train = Picked(Photos(PhotosConfig(size=8)).open("train"), 96)
    one = run(context(PatchTokenizer(8)), train=train)
    two = run(context(PatchTokenizer(8), batch=7), train=train)
    assert [(r.point["tap"], r.value) for r in one] == [(r.point["tap"], r.value) for r in two]


def test_histogram():
    indices = torch.tensor([[[0, 1], [0, 1], [1, 2], [0, 0]]])  # code = first + 2 * second
    expected = [[0.25, 0, 0.5, 0, 0, 0.25]]
    assert linear.histogram(indices, (2, 3)).tolist() == expected


def test_what_does_not_apply(context, run, measure, monkeypatch):
    plain = Shades(20)
    plain.classes = ()
    found = context(PatchTokenizer(8))
    assert run(found, plain) == [] and "no classes" in found.skipped[0]["reason"]
    found = context(PatchTokenizer(8))
    assert measure(found, "linear_probe", lambda context: "no training images: none") == []
    assert "no training images" in found.skipped[-1]["reason"]
    found = context(PatchTokenizer(8))
    assert run(found, Shades(20, labeled=False)) == []
    assert "no label" in found.skipped[0]["reason"]
    monkeypatch.setattr(linear, "_WIDEST", 100)
    found = context(PatchTokenizer(8))
    taps = {row.point["tap"] for row in run(found, Shades(20))}
    assert "pixels" not in taps and "codes/flat" in taps
    assert "192 features" in found.skipped[-1]["reason"]
