"""Reference statistics: made, read, compared with; two sides that differ are an error."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from vistok.config.overrides import parse
from vistok.eval.__main__ import reference
from vistok.eval.config import EvalConfig
from vistok.eval.images import Views, exact
from vistok.eval.measure import evaluate
from vistok.eval.reference.files import ReferenceConfig, make_reference
from vistok.eval.reference.real import RealStats, StatsError
from vistok.eval.systems.runs import RunError, open_split
from vistok.metrics import FeatureStats, frechet_distance

PHOTOS = ["data.kind=photos", "data.size=8", "data.count=40"]


def asked(out, *words, **given):
    """The config of reference statistics, from key=value words and fields."""
    return ReferenceConfig(**{"out": str(out), **parse(words), **given})


@pytest.fixture
def made(tmp_path):
    """made(*words, **options) -> (path of a reference file, what it was made of)."""

    def make(*words, name="ref.safetensors", **options):
        path = tmp_path / name
        runs = [word for word in words if "=" not in word]
        data = [word for word in (words or PHOTOS) if "=" in word]
        return path, make_reference(runs, asked(path, *data, **options))

    return make


@pytest.fixture
def adm(tmp_path):
    """adm(width) -> statistics as others publish them: mu and sigma, nothing else."""

    def make(width=320):
        rng = np.random.default_rng(0)
        features = rng.normal(size=(width + 9, width))
        path = tmp_path / f"VIRTUAL_{width}.npz"
        np.savez(path, mu=features.mean(0), sigma=np.cov(features.T), mu_s=np.zeros(3))
        return path

    return make


@pytest.mark.filterwarnings("ignore:Fréchet")
@pytest.mark.parametrize("ending", ["safetensors", "npz"])
def test_a_file_says_what_it_was_made_of(tmp_path, features, runs, ending):
    path = tmp_path / "out" / f"ref.{ending}"
    done = CliRunner().invoke(reference, [*PHOTOS, f"out={path}", "limit=30"])
    assert done.exit_code == 0, done.output
    assert "photos, train split: 30 images" in done.output
    found = RealStats.load(path)
    data = open_split(None, parse(PHOTOS)["data"], "train")
    assert (found.reference.name, found.reference.split) == ("photos", "train")
    assert found.reference.manifest == data.record()["manifest"]
    assert found.reference.count == found.stats.count == 30 and found.unknown == ()
    assert (found.crop, found.filter, found.size) == (
        data.record()["crop"], data.record()["filter"], (8, 8),
    )  # fmt: skip
    assert found.network.name == "vistok-cnn" and found.network.sha256 == features.sha256
    assert found.made["versions"]["torch"] and found.made["commit"] and found.made["date"]
    views = Views(data, 32, 30)
    with exact():
        expected = views.stats(features)
    assert found.stats.mean == pytest.approx(expected.mean, rel=1e-12)
    assert found.stats.cov == pytest.approx(expected.cov, rel=1e-12)
    assert frechet_distance(found.stats, expected) < 1e-6
    # Of a run: its data, and words that change them.
    done = CliRunner().invoke(reference, [str(runs[0]), "data.count=9", "split=val", f"out={path}"])
    assert done.exit_code == 0, done.output
    assert RealStats.load(path).reference.split == "val" and RealStats.load(path).stats.count == 24


def test_training_images_are_cropped_as_for_evaluation(tmp_path):
    from PIL import Image

    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    changes = {"kind": "folder", "path": str(tmp_path), "size": 8, "crop": "random", "pad": 2}
    data = open_split(None, {**changes, "min_share": 0.5}, "train")
    record = data.record()
    assert (record["crop"], record["pad"], record["flip"]) == ("center", 0, False)
    assert (data.sample(1, 0, 0).pixels == data.sample(1, 5, 9).pixels).all()


def test_mistakes(tmp_path, made, fails):
    with fails(StatsError, "ref.csv", "safetensors"):
        make_reference([], asked(tmp_path / "ref.csv", *PHOTOS))
    with fails(RunError, "no data named", "kind=photos"):
        make_reference([], asked(tmp_path / "ref.npz"))
    with fails(StatsError, "expected one run"):
        make_reference(["a", "b"], asked(tmp_path / "ref.npz"))
    with fails(StatsError, "no such file", "eval reference"):
        RealStats.load(tmp_path / "nothing.npz")
    path, _ = made()
    path.write_bytes(path.read_bytes()[:50])
    with fails(StatsError, "not reference statistics"):
        RealStats.load(path)
    other = tmp_path / "other.npz"
    np.savez(other, mean=np.zeros(3))
    with fails(StatsError, "mean", "mu and sigma"):
        RealStats.load(other)
    np.savez(other, mu=np.zeros(3), sigma=np.eye(4))
    with fails(StatsError, r"\[D\]"):
        RealStats.load(other)


def test_a_pickle_in_an_npz_is_refused(tmp_path, fails):
    path = tmp_path / "evil.npz"
    np.savez(path, mu=np.array([print], dtype=object), sigma=np.eye(2))
    with fails(StatsError, "evil.npz", "allow_pickle"):
        RealStats.load(path)


def test_gfid_is_measured_against_a_file(runs, made):
    path, real = made()
    options = dict(protocols=("rfid", "gfid"), gfid={"samples": 21, "seeds": 1}, limit=24)
    with_file = evaluate(runs, EvalConfig(**options, reference=str(path)))
    plain = evaluate(runs, EvalConfig(**options))
    for row in (*with_file.find("gFID"), *with_file.find("gFID-untrained")):
        assert row.reference == real.reference and row.reference.split == "train"
        assert "not training statistics" not in row.note and row.count == 21
    assert with_file.find("gFID")[0].value != plain.find("gFID")[0].value
    rfid = lambda results: [row.value for row in results.find("rFID")]
    assert rfid(with_file) == rfid(plain)
    assert with_file.find("rFID")[0].reference.split == "val"


def test_rfid_is_measured_against_a_file_when_asked(runs, made, fails):
    own, _ = made(str(runs[0]), split="val", name="own.safetensors")
    options = dict(protocols=("rfid",), reference=str(own), reference_rfid=True)
    rows = evaluate(runs[:1], EvalConfig(**options)).find("rFID")
    plain = evaluate(runs[:1], EvalConfig(protocols=("rfid",))).find("rFID")
    assert [r.value for r in rows] == pytest.approx([r.value for r in plain], rel=1e-9)
    with fails(ValueError, "own.safetensors", "none of rfid", "reference_rfid=true"):
        evaluate(runs[:1], EvalConfig(protocols=("rfid",), reference=str(own)))
    with fails(ValueError, "reference=FILE"):
        evaluate(runs[:1], EvalConfig(protocols=("rfid",), reference_rfid=True))


@pytest.mark.parametrize(
    ("words", "split", "field", "there", "here"),
    [
        ((*PHOTOS, "data.size=16"), "train", "size", "16x16", "8x8"),
        (PHOTOS, "train", "split", "train", "val"),
        ((*PHOTOS, "data.val_count=5"), "val", "count", "5", "24"),
        ((*PHOTOS, "data.val_count=24", "data.seed=1"), "val", "data", "photos", "photos"),
    ],
)
def test_a_mismatch_names_field_values_and_way_out(
    runs, made, fails, words, split, field, there, here
):
    path, _ = made(*words, split=split)
    options = dict(protocols=("rfid",), reference=str(path), reference_rfid=True)
    from vistok.eval.reference.agreement import FIELDS, MismatchError

    said = rf"{field} is {there}\S* ?\w* there and {here}"
    rest = tuple(name for name in FIELDS if name != field)
    with fails(MismatchError, str(path), said, rf"allow_mismatch=\[.*{field}"):
        evaluate(runs[:1], EvalConfig(**options, allow_mismatch=rest))
    allowed = evaluate(runs[:1], EvalConfig(**options, allow_mismatch=FIELDS))
    for row in allowed.find("rFID"):
        assert f"reference mismatch allowed: {field} is" in row.note
    assert "mismatch" not in allowed.find("PSNR")[0].note


@pytest.mark.parametrize(("field", "value"), [("crop", "adm"), ("filter", "box")])
def test_gfid_minds_crop_and_filter(runs, made, fails, field, value):
    import dataclasses

    path, real = made()
    dataclasses.replace(real, **{field: value}).save(path)
    options = dict(protocols=("gfid",), gfid={"samples": 7, "seeds": 1}, reference=str(path))
    with fails(ValueError, f"{field} is {value} there", rf"allow_mismatch=\[{field}\]"):
        evaluate(runs, EvalConfig(**options))
    row = evaluate(runs, EvalConfig(**options, allow_mismatch=(field,))).find("gFID")[0]
    assert f"allowed: {field} is {value}" in row.note and getattr(row, field) == value


def test_networks_must_be_the_same(runs, made, adm, fails):
    import dataclasses

    path, real = made()
    options = dict(protocols=("gfid",), gfid={"samples": 7, "seeds": 1}, reference=str(path))
    other = real.network.model_copy(update={"sha256": "0" * 64})
    dataclasses.replace(real, network=other).save(path)
    with fails(ValueError, "network is vistok-cnn 0000", r"allow_mismatch=\[network\]"):
        evaluate(runs, EvalConfig(**options))
    other = real.network.model_copy(update={"name": "inception"})
    dataclasses.replace(real, network=other).save(path)
    with fails(ValueError, "inception", "vistok-cnn") as _:
        evaluate(runs, EvalConfig(**options, allow_mismatch=("network",)))
    with fails(ValueError, "64 features", r"320 features"):
        evaluate(runs, EvalConfig(**{**options, "reference": str(adm(64))}))


def test_what_a_foreign_file_does_not_say_stays_unknown(runs, adm):
    path = adm()
    found = RealStats.load(path)
    assert found.unknown == ("network", "crop", "filter", "size", "split", "count")
    assert isinstance(found.stats, FeatureStats) and found.reference.count == 0
    with np.load(path) as file:
        assert found.stats.mean == pytest.approx(file["mu"])
        assert found.stats.cov == pytest.approx(file["sigma"])
    options = EvalConfig(protocols=("gfid",), gfid={"samples": 7, "seeds": 1}, reference=str(path))
    row = evaluate(runs, options).find("gFID")[0]
    assert row.reference.name == "VIRTUAL_320" and row.reference.split == "unknown"
    for word in ("network", "crop", "filter", "size", "split", "count"):
        assert word in row.note.partition("does not say its")[2]
    assert row.features.name == "vistok-cnn" and row.size == (8, 8)  # those of our side


def test_another_reference_is_another_key(runs, made, tmp_path, monkeypatch):
    first, _ = made(name="a.safetensors")
    second, _ = made(*PHOTOS, "data.seed=3", name="b.safetensors")
    done = []
    go = lambda path: evaluate(
        runs,
        EvalConfig(
            protocols=("rfid", "gfid"),
            gfid={"samples": 7, "seeds": 1},
            cache=str(tmp_path / "c"),
            reference=path,
        ),
        done.append,
    )
    rows = [go(str(path)).find("gFID")[0].value for path in (first, second, first)]
    assert rows[0] == rows[2] != rows[1]
    assert "found 0 of" in done[0] and "found 1 of" in done[2] and "rfid of tok" in done[2]
    assert len(done) == 5  # the third time nothing is evaluated
    # The same numbers measured on another day are the same reference.
    again, _ = made(name="again.safetensors")
    monkeypatch.setattr("vistok.eval.result_cache.ResultCache.measure", None)
    assert go(str(again)).find("gFID")[0].value == rows[0]
    assert json.dumps(RealStats.load(again).made) != "{}"
