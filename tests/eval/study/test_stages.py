"""Studies of ordered stages: post-training, its order, its resume, its report."""

import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from tests.support.training import forget_accelerate
from vistok.config import ConfigError
from vistok.eval.__main__ import study as command
from vistok.eval.report.stages import sentences, stages, table
from vistok.eval.results.rows import Network, Reference, Results, Row
from vistok.eval.study.study import read_study, run_config
from vistok.eval.study.trainings import kind_of, needed

CONFIGS = Path(__file__).parents[3] / "configs"
ORDER = ["tokens", "rar", "pairs", "post"]


def go(*words):
    forget_accelerate()
    return CliRunner().invoke(command, [*map(str, words), "evaluate.device=cpu"])


@pytest.mark.slow
def test_the_stages_of_post_training(tmp_path, in_process, monkeypatch):
    """The shipped study on the photographs, its trainings in this process."""
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    path = CONFIGS / "studies" / "post_training_photos.yaml"
    words = [
        path,
        f"out={out}",
        "steps=12",
        "evaluate.protocols=[rfid, pfid, gfid]",
        "evaluate.limit=32",
        "evaluate.gfid.samples=16",
        "evaluate.gfid.seeds=1",
    ]
    done = go(*words)
    assert done.exit_code == 0, done.output
    first = ["plain", "perturbed"]
    assert in_process == [*first, *(f"{name}-{stage}" for stage in ORDER for name in first)]
    results = Results.load(out / "results.json")
    assert results.facts["pairs"]["plain"] == ["plain-rar"]
    assert results.facts["pairs"]["plain-post"] == ["plain-post/plain-rar"]
    found = {stage.name: stage for stage in stages(results)}
    assert list(found) == ["plain", "plain-post", "perturbed", "perturbed-post"]
    for name, stage in found.items():
        metrics = {row.metric for row in stage.rows.values()}
        assert metrics == {"rFID", "pFID-v1-quick", "gFID"}, name
        assert any(row.guidance == 1.0 for row in stage.rows.values())
        later = name.endswith("-post")
        assert (stage.kind == "post-training") == later and stage.seed == "0"
        assert stage.changed == (("decoder",) if later else ())
    notes = [row.note for row in results.rows if row.run == "plain-post/plain-rar"]
    assert all("compatible: decoder changed only" in note for note in notes)
    for name in ("report.html", "report.md"):
        text = (out / name).read_text()
        assert "post-training of plain" in text and "plain-post (post-training) against" in text
    for said in ("perturbed against plain: rFID", "1 seed: these differences"):
        assert said in done.output
    again = go(*words)
    assert again.exit_code == 0 and len(in_process) == 10  # nothing is made twice
    # The real images of a tokenizer that trained on pairs are their originals.
    assert len({str(one) for one in results.facts["data"].values()}) == 1


# -- order and references --------------------------------------------------------------------------


@pytest.fixture
def staged(tmp_path, tree):
    """staged(runs, **changes) -> a study whose runs may start from a cache's config."""
    base = {
        "task": {"kind": "tokenizer", "tokenizer": tree("fsq")},
        "data": {"kind": "photos", "size": 8, "count": 40, "val_count": 12},
    }
    cache = {"task": {"kind": "cache", "tokenizer": "x"}, "data": base["data"]}
    relations = {"task": {"kind": "codebook_relations"}, "data": base["data"]}
    for name, one in (("base", base), ("cache", cache), ("relations", relations)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(one))

    def make(runs, **changes):
        given = {"out": str(tmp_path / "out"), "train": str(tmp_path / "base.yaml"), "runs": runs}
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump({**given, **changes}, sort_keys=False))
        return path

    make.cache = str(tmp_path / "cache.yaml")
    return make


def test_a_run_names_its_own_config_and_earlier_runs(staged, tmp_path):
    tokens = {"train": staged.cache, "task.tokenizer": "{study}/a", "batch_size": 7}
    found = read_study(staged({"a": {}, "b": tokens}, set={"steps": 3}, seeds=[4, 5]), ["steps=9"])
    first, second = (run_config(found, "b", seed) for seed in found.seeds)
    assert (first.task.kind, first.task.tokenizer) == ("cache", f"{tmp_path}/out/seed4/a")
    assert (first.seed, second.seed, second.folder) == (4, 5, f"{tmp_path}/out/seed5/b")
    assert first.steps == 1  # `set` and the command line change what starts from the study's config
    assert run_config(found, "a").steps == 9 and run_config(found, "a").seed == 4
    assert kind_of(first) == "job"


def test_what_a_run_refers_to_is_made_too(staged):
    tokens = {"train": staged.cache, "task.tokenizer": "{study}/a"}
    found = read_study(staged({"ab": {}, "a": {}, "b": tokens}))
    configs = {name: run_config(found, name) for name in found.runs}
    assert needed(configs, ("b",)) == {"a", "b"} and needed(configs, ("ab",)) == {"ab"}
    assert needed(configs, ()) == {"ab", "a", "b"}


def test_what_was_made_of_something_else_is_not_passed_over(staged, in_process, tmp_path):
    tokens = {"train": staged.cache, "task.tokenizer": "{study}/a", "trackers": []}
    small = {"steps": 2, "batch_size": 4, "trackers": []}
    path = staged({"a": {}, "b": tokens, "c": {}}, set=small, evaluate={"protocols": ["rfid"]})
    done = go(path, "only=[b]")
    assert done.exit_code == 0, done.output
    assert in_process == ["a", "b"]
    assert (tmp_path / "out" / "_only" / "report.html").is_file()
    assert go(path, "only=[b]").exit_code == 0 and len(in_process) == 2
    shutil.rmtree(tmp_path / "out" / "a")
    done = go(path, "only=[b]", "steps=3")
    assert done.exit_code == 1 and in_process[2:] == ["a"]
    assert "begun with tokenizer=" in done.output and done.output.count("error: ") == 1


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ({"b": {"train": "cache", "task.tokenizer": "{study}/a"}, "a": {}}, "not made before"),
        ({"b": {"train": "cache", "task.tokenizer": "{study}/b"}}, "not made before"),
        ({"b": {"train": "cache", "task.tokenizer": "else"}}, "no run trains a tokenizer"),
        ({"a": {}, "b": {"train": "relations"}}, "runs.b: its task is codebook_relations"),
        ({"a": {"train": "nowhere.yaml"}}, "nowhere.yaml"),
    ],
)
def test_mistakes_in_stages_are_one_line(staged, in_process, tmp_path, runs, words):
    text = yaml.safe_dump(runs, sort_keys=False)
    for name in ("cache", "relations"):
        text = text.replace(f"train: {name}\n", f"train: {tmp_path}/{name}.yaml\n")
    done = go(staged(yaml.safe_load(text)))
    lines = done.output.strip().splitlines()
    assert done.exit_code == 1 and len(lines) == 1 and words in lines[0], done.output
    assert not in_process


def test_seeds_are_different_and_not_negative(staged, fails):
    with fails(ConfigError, "seeds", "different seeds of 0 or more"):
        read_study(staged({"a": {}}, seeds=[1, 1]))


# -- the table -------------------------------------------------------------------------------------


def results(values, lineage=True):
    """Results of a tokenizer and one that came from it: {(run, seed): (rFID, gFID)}."""
    rows, runs, pairs = [], [], {}
    common = {
        "reference": Reference(name="x", split="val", manifest="m", count=64),
        "features": Network(name="n", sha256="0"),
        "count": 64,
    }
    for (name, seed), (r, g) in values.items():
        run, parent = f"seed{seed}/{name}", f"{name.removesuffix('-post')} {seed}"
        step = {"stage": name, "kind": "post-training", "changed": ["decoder"]}
        step["parents"] = [{"name": "<i>", "sha256": parent}]
        own = {"lineage": [step]} if name.endswith("-post") and lineage else {}
        runs.append({"name": run, "kind": "tokenizer", "sha256": f"{name} {seed}", "model": own,
                     "config": {"seed": seed}, "folder": run, "spec": {}, "parts": {}})  # fmt: skip
        pairs[run] = [f"{run}/rar"]
        rows.append(Row(metric="rFID", value=r, run=run, **common))
        sampling = {"generator": {"guidance": 1.0}}
        rows.append(Row(metric="gFID", value=g, run=f"{run}/rar", sampling=sampling, **common))
    return Results(rows=tuple(rows), runs=tuple(runs), facts={"pairs": pairs})


VALUES = {
    ("a", 0): (10.0, 30.0),
    ("a", 1): (12.0, 32.0),
    ("b", 0): (11.0, 29.0),
    ("b", 1): (13.0, 31.0),
    ("a-post", 0): (10.5, 27.0),
    ("a-post", 1): (11.5, 30.0),
}


def test_stages_stand_below_the_one_they_came_from():
    found = table(results(VALUES))
    assert [column[0] for column in found["columns"]] == ["rFID", "gFID"]
    lines = [(one["name"], one["seed"]) for one in found["lines"]]
    assert lines[:6] == [("a", "0"), ("a", "1"), ("a", "mean of 2"), ("a-post", "0"),
                         ("a-post", "1"), ("a-post", "mean of 2")]  # fmt: skip
    mean = found["lines"][5]
    assert mean["kind"] == "post-training of a" and mean["changed"] == "decoder"
    assert mean["cells"] == [("11.00", "+0.00"), ("28.50", "-2.50")]
    assert found["lines"][0]["cells"][1] == ("30.00", "")
    assert table(results(VALUES, lineage=False)) is None
    assert sentences(results(VALUES, lineage=False)) == []


def test_sentences_tell_every_seed():
    post, other, caution = sentences(results(VALUES))
    assert post.startswith("a-post (post-training) against a: rFID 10.00 -> 10.50, 12.00 -> 11.50 ")
    assert (
        "(seeds disagree); gFID guidance 1 30.00 -> 27.00, 32.00 -> 30.00 (lower with every" in post
    )
    assert other.startswith("b against a: rFID 10.00 -> 11.00, 12.00 -> 13.00 (higher with every")
    assert caution.startswith("2 seeds: these differences")


def test_a_number_that_is_missing_is_left_empty():
    found = results(VALUES)
    rows = [r for r in found.rows if r.metric != "gFID" or r.run != "seed1/a-post/rar"]
    found = found.model_copy(update={"rows": tuple(rows)})
    lines = {(one["name"], one["seed"]): one["cells"] for one in table(found)["lines"]}
    assert lines["a-post", "1"][1] == ("", "") and lines["a-post", "mean of 2"][1] == ("", "")
    assert "gFID guidance 1 30.00 -> 27.00 (lower)" in sentences(found)[0]
