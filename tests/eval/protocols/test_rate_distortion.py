"""Rate and distortion: real bytes, codecs at matched sizes, the same numbers for any batch."""

import json
import math
import sys

import pytest

from tests.support.eval_tokenizers import PatchTokenizer, PixelTokenizer
from vistok.data import Photos, PhotosConfig
from vistok.data.batch import to_uint8
from vistok.eval.images import Views, exact
from vistok.eval.jobs import Outcome, rows_of
from vistok.eval.protocols import codecs, rate_distortion
from vistok.eval.reference.training_set import Picked

pytestmark = pytest.mark.filterwarnings("ignore:Fréchet")


def codec(row):
    return row.point["codec"]


def training(count=96):
    """What a job hands to `run`: context -> training images."""

    def make(context):
        size = context.sides[0]
        return Views(Picked(Photos(PhotosConfig(size=size)).open("train"), count), context.batch)

    return make


@pytest.fixture
def run(measure):
    """run(context) -> rows, with two qualities of each image codec."""
    return lambda context: measure(context, "rate_distortion", training(), qualities=(10, 90))


def test_rows_of_a_flexible_tokenizer(context, run):
    pytest.importorskip("constriction")
    found = context(PatchTokenizer(8))  # 16 tokens of 9 bits
    rows = run(found)
    own = [row for row in rows if row.run == "tiny"]
    sizes = {(codec(row), row.length): row.measured["bytes"] for row in own}
    assert {c for c, _ in sizes} == {"packed", "arithmetic", "arithmetic-image"}
    assert {k for _, k in sizes} == {1, 2, 4, 8, 16}
    tokens = found.tokenizer.encode(found.views.pick(range(24)))
    for length in (2, 16):
        packed = (tokens if length == 16 else tokens.prefix(length)).to_bytes()
        assert sizes["packed", length] == sum(map(len, packed)) / 24
    # Patches of photographs are far from equally frequent colors.
    assert sizes["arithmetic", 16] < 18 - 1
    assert sizes["arithmetic", 4] < sizes["arithmetic", 8] < sizes["arithmetic", 16]
    quality = {}
    for row in own:
        quality.setdefault((row.metric, row.length), set()).add(row.value)
    assert all(len(values) == 1 for values in quality.values())  # the way of writing changes none
    assert {m for m, _ in quality} == {"PSNR", "perceptual", "rFID"}
    assert min(quality["PSNR", 16]) > max(quality["PSNR", 8])
    # No file is as small as that: the reason is told once a codec.
    reasons = {one["protocol"]: one["reason"] for one in found.skipped}
    reason = reasons["rate_distortion, JPEG at matched bytes"]
    assert "packed @1 " in reason and "@16 21.0;" in reason and "nearest files" in reason


def test_baselines_are_measured_once_and_listed_once(context, run, monkeypatch):
    calls = []
    encode = codecs.Codec.encode
    count = lambda self, *args: calls.append(self.name) or encode(self, *args)
    monkeypatch.setattr(codecs.Codec, "encode", count)
    first = context(PatchTokenizer(8), name="a")
    one = run(first)
    before, again = len(calls), context(PatchTokenizer(8, patch=4), name="b")
    again.views = first.views
    two = run(again)
    assert before > 0 and len(calls) - before <= 24 * 12  # only sizes not looked at before
    plain = [row for row in one if row.run == "JPEG" and "matched" not in row.note]
    assert [row.note.split(",")[0] for row in plain[::3]] == ["quality 10", "quality 90"]
    listed = rows_of([Outcome(tuple(one)), Outcome(tuple(two))])
    assert len(listed) < len(one) + len(two)
    assert sum(row.run == "JPEG" and "matched" not in row.note for row in listed) == len(plain)
    assert sum(row.run == "a" for row in listed) == sum(row.run == "a" for row in one)


def test_a_size_in_reach_is_matched(context, run):
    tokenizer = PatchTokenizer(16, patch=1)  # 256 tokens of 9 bits
    whole = PatchTokenizer.spec(tokenizer).model_copy(update={"prefix": "none"})
    tokenizer.spec = lambda: whole
    rows = run(context(tokenizer, count=12))
    matched = [row for row in rows if "matched to tiny packed @256" in row.note]
    assert {codec(row) for row in matched} >= {"JPEG"} and len(matched) >= 3
    (target,) = {row.measured["bytes"] for row in rows if codec(row) == "packed"}
    assert target > 288
    for row in matched:
        assert abs(row.measured["bytes"] - target) <= 0.1 * target and row.run == codec(row)


@pytest.mark.parametrize("codec", codecs.CODECS, ids=lambda codec: codec.name)
def test_codecs(context, codec):
    if not codec.here:
        pytest.skip(f"this Pillow has no {codec.name}")
    found = context(PixelTokenizer(32), count=8)
    views = found.views
    sizes = [codecs.mean_bytes(views, codec, quality) for quality in (10, 50, 95)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[2]
    for target in (sizes[1], sizes[1] + 3):
        quality, size = codecs.nearest_quality(views, codec, target)
        others = [codecs.mean_bytes(views, codec, q) for q in range(codec.lowest, 96)]
        assert abs(size - target) == pytest.approx(min(abs(o - target) for o in others), abs=2)
        assert others[quality - codec.lowest] == size
    picture = to_uint8(views.pick([0]))[0]
    error = (codec.decode(codec.encode(picture, 95)).float() - picture.float()).square().mean()
    assert 10 * math.log10(255**2 / float(error)) > 25
    with exact():
        rows = codecs.codec_rows(found, codec, 50)
    total = sum(len(codec.encode(one, 50)) for one in to_uint8(views.pick(range(8))))
    assert {row.measured["bytes"] for row in rows} == {total / 8} and {row.run for row in rows} == {
        codec.name
    }


def test_batch_size_changes_nothing(context, run):
    one, two = run(context(PatchTokenizer(8))), run(context(PatchTokenizer(8), batch=7))
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        assert (a.metric, a.point, a.length, a.measured) == (
            b.metric,
            b.point,
            b.length,
            b.measured,
        )
        assert a.value == pytest.approx(b.value, rel=1e-5)


def test_what_does_not_apply(context, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "constriction", None)
    found = context(PatchTokenizer(8))
    rows = run(found)
    assert {codec(row) for row in rows if row.run == "tiny"} == {"packed"}
    assert any("pip install" in one["reason"] for one in found.skipped)
    continuous = PatchTokenizer(8)
    continuous.spec = lambda: PatchTokenizer.spec(continuous).model_copy(update={"vocab": ()})
    found = context(continuous)
    assert run(found) == [] and "continuous" in found.skipped[0]["reason"]


def test_settings_are_json(runs):
    from vistok.eval.config import EvalConfig
    from vistok.eval.systems.runs import resolve

    (system,) = resolve(runs)
    (job,) = rate_distortion.RateDistortion().jobs(system, EvalConfig())
    dumped = job.config.model_dump(mode="json")
    assert json.loads(json.dumps(dumped)) == dumped and len(dumped["codecs"]) == 3
