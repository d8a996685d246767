"""What was measured before is found, under today's names; anything else is measured again."""

import dataclasses
import json

import pytest

from vistok.eval import jobs
from vistok.eval.config import EvalConfig
from vistok.eval.jobs import Outcome
from vistok.eval.measure import evaluate
from vistok.eval.protocols.base import PROTOCOLS, Job
from vistok.eval.protocols.generated import Pass
from vistok.eval.result_cache import facts_of, renamed
from vistok.eval.results.rows import Reference, Row
from vistok.eval.resumable import digest
from vistok.eval.systems.runs import resolve


@pytest.fixture
def measured(monkeypatch):
    """The protocols of the jobs that were really done, in order."""
    done, real = [], jobs.do

    def do(job, *args):
        done.append(job.protocol.name)
        return real(job, *args)

    monkeypatch.setattr("vistok.eval.result_cache.do", do)
    return done


@pytest.fixture
def go(runs, tmp_path, measured):
    """go(paths, **options) -> (results, what was really done)."""

    def run(*paths, **rest):
        measured.clear()
        gfid = {"seeds": 1, **rest.pop("gfid", {})}
        options = {"protocols": ("rfid", "gfid", "image_grids"), "limit": 12, **rest}
        options["gfid"] = gfid
        results = evaluate(paths or runs, EvalConfig(cache=str(tmp_path / "cache"), **options))
        return results, list(measured)

    return run


def test_only_what_is_missing_is_measured(go):
    first, done = go()
    assert set(done) == {"rfid", "gfid", "image_grids"} and done[0] == "rfid"
    every = len(done)
    second, done = go()
    assert done == []
    assert second.rows == first.rows  # versions, commit and date too
    for name in ("codebook", "image_grids", "skipped", "pairs"):
        assert json.dumps(second.facts[name]) == json.dumps(first.facts[name]), name
    _, done = go(protocols=("rfid", "pfid", "gfid", "image_grids"))
    assert done == ["pfid"]
    _, done = go(gfid={"guidance": (1.0, 2.0)})  # rfid and the tokenizer's images know no guidance
    assert set(done) == {"gfid", "image_grids"}
    _, done = go(gfid={"guidance": (1.0, 2.0)}, sampling={"top_k": 2})  # nor sampling settings
    assert set(done) == {"gfid", "image_grids"}
    _, done = go(batch=5)
    assert done == []
    _, done = go(fresh=True)
    assert len(done) >= every


def test_a_date_is_that_of_the_measurement(go, monkeypatch):
    first, _ = go()
    stamp = {"versions": {"vistok": "9"}, "commit": "later", "date": "2099-01-01"}
    monkeypatch.setattr("vistok.eval.measure.provenance", lambda: stamp)
    second, done = go()
    assert done == [] and second.rows == first.rows and second.facts["commit"] == "later"
    third, _ = go(fresh=True)
    assert {row.date for row in third.rows} == {"2099-01-01"}


def test_a_run_that_moved_is_found_and_has_its_new_name(go, runs):
    go()
    tok, gen = (path.rename(path.with_name(f"{path.name}-b")) for path in runs)
    results, done = go(tok, gen)
    assert done == []
    assert {row.run for row in results.rows} == {"tok-b", "gen-b"}
    assert {one["run"] for one in results.facts["image_grids"]} == {"tok-b", "gen-b"}
    assert list(results.facts["codebook"]) == ["tok-b"]
    gfid = results.find("gFID")[0]
    assert "tokens of tok-b;" in gfid.note and "tok;" not in gfid.note


def test_renaming_touches_names_alone():
    reference = Reference(name="a", split="val", manifest="", count=2)
    rows = [
        Row(metric="a", value=1, run=run, reference=reference, count=2, note=note)
        for run, note in (("a", "tokens of a"), ("a/probe", "tokens of ab; a"), ("ab", "a"))
    ]
    facts = {"order": {"name": "a/x", "text": "a"}, "list": [{"run": "b"}]}
    found = renamed(Outcome(tuple(rows), facts), {"a": "b", "b": "a"})
    assert [(row.run, row.note) for row in found.rows] == [
        ("b", "tokens of b"), ("b/probe", "tokens of ab; a"), ("ab", "a"),
    ]  # fmt: skip
    assert found.facts == {"order": {"name": "b/x", "text": "a"}, "list": [{"run": "a"}]}
    assert {(row.metric, row.reference.name) for row in found.rows} == {("a", "a")}


def test_other_weights_are_measured(go, runs, make_tokenizer):
    go(runs[0])
    tokenizer = make_tokenizer("vq")
    tokenizer.save_pretrained(runs[0] / "model")
    results, done = go(runs[0])
    sha = resolve([runs[0]])[0].tokenizer.sha256
    assert "rfid" in done
    assert {row.weights["tokenizer"] for row in results.rows} == {sha}


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"kind": "vistok-outcome", "schema": 1}', "other"],
    ids=["empty", "cut", "list", "nothing", "half", "other"],
)
def test_a_damaged_file_is_measured_again(go, tmp_path, caplog, content):
    first, _ = go(protocols=("rfid",))
    (path,) = (tmp_path / "cache").glob("rfid-*")
    if content == "other":  # a whole file, but of another job
        content = path.read_text().replace(path.stem.split("-")[1], "0" * 32)
    path.write_text(content)
    second, done = go(protocols=("rfid",))
    assert done == ["rfid"]
    strip = lambda row: row.model_copy(update={"date": ""})
    assert list(map(strip, second.rows)) == list(map(strip, first.rows))
    (line,) = [m for m in caplog.messages if path.name in m]
    assert "\n" not in line and "evaluated again" in line
    assert go(protocols=("rfid",))[1] == []


def test_the_key_knows_all_that_numbers_depend_on(runs, context, make_tokenizer):
    (system,) = resolve(runs)
    one = context(make_tokenizer("fsq"))
    one.run = system.tokenizer
    protocol, own = PROTOCOLS["gfid"], Pass(length=4, samples=3)
    job = Job(protocol, own, system.generators[0])
    key = lambda job, context: digest(facts_of(job, context))
    base = key(job, one)
    assert base == key(job, dataclasses.replace(one)) and len(base) == 64
    renamed_run = dataclasses.replace(one.run, name="b", folder=runs[1])
    assert key(job, dataclasses.replace(one, run=renamed_run)) == base

    def view(**changes):
        record = {**one.views.record, **changes}
        views = dataclasses.replace(one.views)
        views.record = record
        return {"views": views}

    assert key(job, dataclasses.replace(one, **view(source="elsewhere"))) == base
    changes = [
        {"protocol": PROTOCOLS["rfid"]},
        {"protocol": type("Newer", (type(protocol),), {"version": 2})()},
        {"config": Pass(length=4, samples=4)},
        {"generator": None},
        {"generator": dataclasses.replace(system.generators[0], sha256="1")},
    ]
    others = [(dataclasses.replace(job, **change), one) for change in changes]
    limited = dataclasses.replace(one.views, limit=5)
    described = {**system.tokenizer.described, "image_size": 16}
    changes = [
        view(manifest="1"), view(crop="adm"), view(filter="box"), {"views": limited}, {"seed": 1},
        {"run": dataclasses.replace(one.run, sha256="1")},
        {"run": dataclasses.replace(one.run, described=described)},
        {"perceptual": None},
        {"features": type("Other", (), {"preprocess": "", "name": "vistok-cnn", "sha256": "1"})},
        {"references": {"gfid": {"vistok-cnn": one.views.real(one.features)}}},
        {"sampling": {"generator": {"temperature": 0.9}}},
        {"sampling": {"decoder": {"steps": 2}}},
    ]  # fmt: skip
    others += [(job, dataclasses.replace(one, **change)) for change in changes]
    keys = [key(*other) for other in others]
    assert base not in keys and len(set(keys)) == len(keys)


def test_two_jobs_of_one_key_are_an_error(runs, monkeypatch, fails):
    twins = lambda self, system, config: [Job(self, config.rfid)] * 2
    monkeypatch.setattr(type(PROTOCOLS["rfid"]), "jobs", twins)
    with fails(ValueError, "two jobs of rfid"):
        evaluate(runs, EvalConfig(protocols=("rfid",)))


def test_rows_say_how_they_were_made(go):
    """Decode settings, length, condition, and manifests that are hashes."""
    results, _ = go(
        protocols=("rfid", "pfid", "gfid"), gfid={"samples": 14, "guidance": (1.0, 2.0)}
    )
    for row in results.rows:
        assert len(row.reference.manifest) == 64 and int(row.reference.manifest, 16)
        assert (
            all(len(one) == 64 for one in row.weights.values())
            and row.weights
            and row.commit
            and row.date
            and row.versions["torch"]
        )
        assert row.crop and row.filter and row.size == (8, 8) and row.precision == "fp32"
        assert row.protocol == row.metric[:4].lower() or row.protocol == "rfid"
    rfid = results.find("rFID")[0]
    assert (
        rfid.sampling == {} and rfid.seed is None and rfid.condition == "none" and rfid.count == 12
    )
    for row in results.find("gFID"):
        assert (row.seed, row.condition, set(row.weights)) == (
            *(0, "class"), {"tokenizer", "generator"},
        )  # fmt: skip
        assert row.guidance in (1.0, 2.0) and row.count == 14
        assert row.sampling["generator"]["temperature"] == 1.0
    assert {row.seed for row in results.find("pFID-v1-cell")} == {0}


def test_more_seeds_measure_only_those_that_are_new(go, runs):
    one, done = go(protocols=("gfid",), gfid={"guidance": (1.0,)})
    passes = done.count("gfid") - 1  # without the baseline, which keeps one seed
    three, done = go(protocols=("gfid",), gfid={"guidance": (1.0,), "seeds": 3})
    assert done == ["gfid"] * 2 * passes
    assert go(protocols=("gfid",), gfid={"guidance": (1.0,), "seeds": 3})[1] == []
    assert go(protocols=("gfid",), gfid={"guidance": (1.0,)})[0].rows == one.rows
    assert len(three.rows) == len(one.rows)
    alone = {seed: evaluate_at(go, seed) for seed in (1, 2)}
    for place, (single, row) in enumerate(zip(one.rows, three.rows, strict=True)):
        if row.metric == "gFID-untrained":
            assert row == single
            continue
        others = [alone[seed][place].value for seed in (1, 2)]
        assert row.each == (single.value, *others) and row.seeds == (0, 1, 2) and row.seed == 0
        assert row.value == pytest.approx(sum(row.each) / 3) and len(set(row.each)) == 3
        assert row.varies == "seeds" and row.interval[0] < row.range[0] < row.range[1]


def evaluate_at(go, seed):
    """Rows of one seed by themselves, which were measured with the others."""
    found, done = go(protocols=("gfid",), gfid={"guidance": (1.0,)}, seed=seed)
    assert done == ["gfid"]  # the baseline alone
    return found.rows
