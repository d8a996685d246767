"""Studies that share a pool of runs, seeds of single runs, scales, and claims from end to end."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from tests.support.training import forget_accelerate
from vistok.config import ConfigError
from vistok.eval.__main__ import study as command
from vistok.eval.results.rows import Results
from vistok.eval.study.config import OWN
from vistok.eval.study.study import planned, read_study, run_config

ROOT = Path(__file__).parents[3]


@pytest.fixture
def pooled(tmp_path, tree, monkeypatch):
    """pooled(name, **changes) -> the YAML of a study of 8-pixel tokenizers with a pool."""
    monkeypatch.chdir(tmp_path)
    base = {
        "task": {"kind": "tokenizer", "tokenizer": tree("fsq")},
        "data": {"kind": "photos", "size": 8, "count": 40, "val_count": 12},
        "steps": 2,
        "batch_size": 4,
        "trackers": [],
    }
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))

    def make(name="s", **changes):
        given = {
            "name": name,
            "out": "out/{name}",
            "pool": "pool",
            "train": "base.yaml",
            "runs": {"a": {}, "b": {"task.tokenizer.quantizer": {"kind": "lfq", "bits": 4}}},
            "evaluate": {"protocols": ["rfid"]},
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**given, **changes}, sort_keys=False))
        return path

    return make


def go(*words):
    forget_accelerate()
    return CliRunner().invoke(command, [*map(str, words), "evaluate.device=cpu"])


CLAIM = {
    "id": "lower",
    "kind": "paired",
    "says": "The one is lower.",
    "pairs": [["a", "b"]],
    "lower": ["rFID"],
}


def test_two_studies_make_a_run_once(pooled, in_process, tmp_path):
    runs = {"a": {"seeds": [0, 1]}, "b": {"task.tokenizer.quantizer": {"kind": "lfq", "bits": 4}}}
    first = go(pooled("one", seeds=[0], claims=[CLAIM], runs=runs))
    assert first.exit_code == 0, first.output
    assert in_process == ["a", "b", "a"]
    assert "NOT DECIDED: The one is lower." in first.output
    kept = sorted((tmp_path / "pool" / "eval_cache").glob("rfid-*.json"))
    assert len(kept) == 3 and not (tmp_path / "out" / "one" / "eval_cache").exists()
    other = {"a": {"seeds": [0, 1]}, "c": {"task.tokenizer.quantizer": {"kind": "lfq", "bits": 5}}}
    second = go(pooled("two", seeds=[1], runs=other))
    assert second.exit_code == 0, second.output
    assert in_process[3:] == ["c"]
    assert len(list((tmp_path / "pool" / "eval_cache").glob("rfid-*.json"))) == 4
    results = {
        name: Results.load(tmp_path / "out" / name / "results.json") for name in ("one", "two")
    }
    rows = {n: {r.run: r.value for r in one.find("rFID")} for n, one in results.items()}
    assert rows["one"]["seed1/a"] == rows["two"]["seed1/a"]
    found = results["one"].facts["study"]["claims"][0]
    assert (
        found["verdict"] == "not decided" and "one seed, which has no interval" in found["sentence"]
    )
    assert (tmp_path / "out" / "one" / "claims" / "lower.svg").read_text().startswith("<svg ")
    page = (tmp_path / "out" / "one" / "report.html").read_text()
    assert page.index('<section id="claims">') < page.index('<section id="summary">')


def test_another_config_of_one_name_is_one_line(pooled, in_process):
    assert go(pooled("one")).exit_code == 0
    done = go(pooled("two", set={"steps": 3, "max_skipped": 5}))
    lines = done.output.strip().splitlines()
    assert done.exit_code == 1 and len(lines) == 1 and len(in_process) == 2
    for words in (
        "runs.a",
        "pool/a",
        "steps is 3, there 2",
        "max_skipped is 5, there 10",
        "another name",
    ):
        assert words in lines[0], lines[0]


def test_it_goes_on_after_a_kill(pooled, in_process, monkeypatch):
    from vistok.eval.systems import training

    path, work = pooled("one", seeds=[0, 1]), training._run

    def run(*given):
        if len(in_process) == 2:
            raise KeyboardInterrupt
        return work(*given)

    monkeypatch.setattr("vistok.eval.systems.training._run", run)
    assert go(path).exit_code == 1 and in_process == ["a", "b"]
    monkeypatch.setattr("vistok.eval.systems.training._run", work)
    assert go(path).exit_code == 0 and in_process == ["a", "b", "a", "b"]


# -- seeds -----------------------------------------------------------------------------------------


def test_runs_have_seeds_of_their_own(pooled):
    runs = {
        "eyes": {"seeds": []},
        "a": {"seeds": [0, 2], "plugins": [], "data.val_count": 9},
        "b": {},
    }
    study = read_study(pooled(seeds=[0], runs=runs))
    made = [(one.folder, one.seed) for one in planned(study)]
    assert made == [("pool/eyes", 0), ("pool/seed0/a", 0), ("pool/seed0/b", 0), ("pool/seed2/a", 2)]
    assert run_config(study, "a", 2).data.val_count == 9 and run_config(study, "a").seed == 0
    only = read_study(pooled(seeds=[0], runs=runs), ["only=b"])
    assert [one.folder for one in planned(only)] == ["pool/seed0/b"]


def test_a_run_refers_to_one_that_is_made_once(pooled, tmp_path):
    cache = {"task": {"kind": "cache", "tokenizer": "x"}, "data": {"kind": "photos", "size": 8}}
    (tmp_path / "cache.yaml").write_text(yaml.safe_dump(cache))
    runs = {"a": {"seeds": []}, "t": {"train": "cache.yaml", "task.tokenizer": "{pool}/a"}}
    study = read_study(pooled(seeds=[3, 4], runs=runs), ["only=t"])
    assert [one.folder for one in planned(study)] == ["pool/a", "pool/seed3/t", "pool/seed4/t"]
    assert run_config(study, "t", 4).task.tokenizer == "pool/a"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"runs": {"a": {"seeds": [1]}}}, ("runs.a has seeds of its own", r"seeds: \[0\]")),
        ({"seeds": [0], "runs": {"a": {"seeds": [1, 1]}}}, ("a.seeds", "different seeds")),
        ({"seeds": [0], "runs": {"a": {"seeds": "x"}}}, ("a.seeds", "list of seeds")),
        (
            {"scale": "gpuu", "scales": {"gpu": {}}},
            ("scale=gpuu", "did you mean 'gpu'", "cpu, gpu"),
        ),
        ({"scale": "gpu"}, ("scale=gpu", "valid: cpu")),
        ({"scales": {"cpu": {}}}, ("cpu", "another name")),
        ({"scales": {"gpu": {"steps": 3}}}, ("scales.gpu.steps", "unknown")),
        ({"pool": "x/{foo}"}, ("pool", "{foo}")),
        ({"claims": [{**CLAIM, "pairs": [["a", "bb"]]}]}, ("claims: lower", "'bb'", "a, b")),
        ({"claims": [CLAIM, CLAIM]}, ("two have the id 'lower'",)),
        ({"claims": [{**CLAIM, "kind": "pared"}]}, ("claims.0", "pared", "paired")),
        ({"claims": [{**CLAIM, "lowr": []}]}, ("claims.0.lowr", "lower")),
    ],
)
def test_mistakes_are_one_line(pooled, changes, words, fails):
    with fails(ConfigError, *words):
        read_study(pooled(**changes))


def test_a_reference_to_a_seed_that_is_not_made(pooled, tmp_path, fails):
    cache = {"task": {"kind": "cache", "tokenizer": "x"}, "data": {"kind": "photos", "size": 8}}
    (tmp_path / "cache.yaml").write_text(yaml.safe_dump(cache))
    tokens = {"train": "cache.yaml", "task.tokenizer": "{study}/a", "seeds": [0, 1]}
    study = read_study(pooled(seeds=[0], runs={"a": {}, "t": tokens}))
    with fails(ConfigError, "runs.t: refers to a, which is not made with seed 1", "runs.a.seeds"):
        planned(study)


# -- scales ----------------------------------------------------------------------------------------


def test_a_scale_is_laid_over_the_study(pooled):
    scale = {
        "set": {"steps": 900},
        "runs": {"b": {"batch_size": 64}, "c": {"steps": 7}},
        "evaluate": {"pfid": {"mode": "full"}},
        "seeds": [0, 1],
    }
    evaluate = {"protocols": ["rfid"], "limit": 9, "pfid": {"mode": "quick"}}
    path = pooled(
        seeds=[0], set={"steps": 3, "warmup": 1}, evaluate=evaluate, scales={"gpu": scale}
    )
    small = read_study(path)
    assert (small.scale, str(small.folder), str(small.home)) == (OWN, "out/s", "pool")
    assert [one.steps for one in planned(small)] == [3, 3]
    large = read_study(path, ["scale=gpu", "evaluate.limit=5", "warmup=2"])
    assert (str(large.folder), str(large.home)) == ("out/s-gpu", "pool-gpu")
    made = planned(large)
    assert [(one.name, one.steps, one.batch_size) for one in made[:3]] == [
        ("a", 900, 4),
        ("b", 900, 64),
        ("c", 7, 4),
    ]
    assert len(made) == 6 and {one.warmup for one in made} == {2}
    assert (large.evaluate.limit, large.evaluate.pfid.mode) == (5, "full")
    assert large.evaluate.protocols == ("rfid",)


STUDIES = [
    path
    for path in sorted((ROOT / "configs/studies").rglob("*.yaml"))
    if "study.schema.json" in path.read_text("utf-8").partition("\n")[0]
]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_shipped_studies_at_all_scales(path, monkeypatch):
    """Each resolves at each of its scales, into folders of their own; so do those of claims."""
    monkeypatch.chdir(ROOT)
    study = read_study(path)
    folders = {study.folder}
    if path.parent.name == "claims":
        assert "gpu" in study.scales and study.claims and study.pool
    for scale in study.scales:
        other = read_study(path, [f"scale={scale}"])
        assert planned(other) and other.folder not in folders and other.home != study.home
        folders.add(other.folder)
    assert planned(study)


def test_claims_of_a_results_file_are_checked(tmp_path, fails):
    from vistok.core.errors import InputError

    chart = {"kind": "scatter", "title": "t", "points": [["a", 1.0, "x"]]}
    reading = {"network": "n", "decides": True, "tests": [], "header": [], "lines": [],
               "charts": [chart], "missing": [], "notes": []}  # fmt: skip
    one = {"id": "c", "kind": "paired", "paper": "", "says": "s", "verdict": "holds here",
           "sentence": "", "needed": "", "doubts": [], "readings": [reading]}  # fmt: skip
    path = tmp_path / "r.json"
    data = json.loads(Results(facts={"study": {"claims": [one]}}).json_text())
    path.write_text(json.dumps(data))
    with fails(InputError, "claims.0.readings.0.charts.0", r"\[name, x, y\]"):
        Results.load(path)
    chart["points"] = [["a", 1.0, 2.0]]
    one["verdict"] = "surely"
    path.write_text(json.dumps(json.loads(Results(facts={"study": {"claims": [one]}}).json_text())))
    with fails(InputError, "claims.0.verdict"):
        Results.load(path)
