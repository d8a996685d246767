"""Studies: what is missing is trained, once; mistakes are one line; the verdict claims no more than
its numbers bear."""

import json
import signal
import time
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from tests.support.processes import run, start
from vistok.config import ConfigError
from vistok.eval.__main__ import study as command
from vistok.eval.results.rows import Network, Reference, Results, Row
from vistok.eval.study.study import evaluation_of, read_study, run_config
from vistok.eval.study.verdict import verdict, verdict_text
from vistok.eval.systems import training

ROOT = Path(__file__).parents[3]
STUDIES = ROOT / "configs" / "studies"


@pytest.fixture
def small_study(tmp_path, tree, small_probe):
    """small_study(**changes) -> the YAML of a study of three 8-pixel tokenizers."""
    base = {
        "task": {"kind": "tokenizer", "tokenizer": tree("fsq")},
        "data": {"kind": "photos", "size": 8, "count": 40, "val_count": 12},
        "steps": 3,
        "batch_size": 4,
        "trackers": [],
    }
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))

    def make(**changes):
        given = {
            "name": "s",
            "out": str(tmp_path / "out"),
            "train": str(tmp_path / "base.yaml"),
            "set": {"steps": 2, "task.losses": [{"kind": "reconstruction", "l2": 1.0}]},
            "runs": {
                "fsq": {},
                "vq": {"task.tokenizer.quantizer": {"kind": "vq", "codebook_size": 12, "dim": 4}},
                "lfq": {"task.tokenizer.quantizer": {"kind": "lfq", "bits": 4}},
            },
            "evaluate": {
                "protocols": ["rfid", "pfid", "gfid"],
                "pfid": {"mode": "quick"},
                "gfid": {"probe": str(small_probe), "seeds": 1},
            },
            "correlate": True,
        }
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump({**given, **changes}, sort_keys=False))
        return path

    return make


def go(*arguments):
    return CliRunner().invoke(command, [*map(str, arguments), "evaluate.device=cpu"])


def test_end_to_end_and_again(small_study, tmp_path, in_process):
    path = small_study()
    done = go(path)
    assert done.exit_code == 0, done.output
    each = ["tokens", "small"]
    assert in_process == ["fsq", "vq", "lfq", *each * 3]
    for words in ("rFID - gFID at guidance 1", "With 3 tokenizers nothing", "report:"):
        assert words in done.output
    results = Results.load(tmp_path / "out" / "results.json")
    assert [run["name"] for run in results.runs][:2] == ["fsq", "fsq/small"]
    facts = results.facts["study"]
    assert facts["runs"]["vq"]["task.tokenizer.quantizer"]["dim"] == 4
    first = facts["correlations"][0]
    assert (first["x"], first["y"], first["n"], first["probe"]) == ("rFID", "gFID", 3, "small")
    for name in ("report.html", "report.md"):
        assert "With 3 tokenizers nothing" in (tmp_path / "out" / name).read_text()
    again = go(path)
    assert again.exit_code == 0 and len(in_process) == 9
    assert [r.value for r in Results.load(tmp_path / "out" / "results.json").rows] == [
        r.value for r in results.rows
    ]
    # Longer trainings of the same study go on from what is there.
    more = go(path, "steps=3", "only=[vq]")
    assert more.exit_code == 0, more.output
    assert in_process[9:] == ["vq", *each]  # other weights, another probe
    only = Results.load(tmp_path / "out" / "vq" / "results.json")
    assert {run["name"] for run in only.runs} == {"vq", "vq/small"}


def test_it_goes_on_after_a_kill(small_study, tmp_path, in_process, monkeypatch):
    path, work = small_study(), training._run

    def until(count):
        def run(*given):
            if len(in_process) == count:
                raise KeyboardInterrupt
            return work(*given)

        monkeypatch.setattr("vistok.eval.systems.training._run", run)
        return go(path)

    for count in (1, 4, 6):
        assert until(count).exit_code == 1
        assert len(in_process) == count
    assert until(None).exit_code == 0
    assert sorted(in_process) == sorted(["fsq", "vq", "lfq", *["tokens", "small"] * 3])


@pytest.mark.slow
def test_a_killed_study_resumes_its_training(small_study, tmp_path):
    """The real processes: SIGTERM ends both, the checkpoint is taken up."""
    runs = {"fsq": {"save_every": 20, "steps": 100_000}}
    path = small_study(runs=runs, evaluate={"protocols": ["rfid"]}, correlate=False)
    line = ["eval", "study", path, "evaluate.device=cpu"]
    first = start(*line, env={"PYTHONPATH": str(ROOT)})
    saved = tmp_path / "out" / "fsq" / "checkpoints"
    deadline = time.monotonic() + 60
    while not list(saved.glob("step_*/state.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    first.send_signal(signal.SIGTERM)
    assert first.wait(30).returncode == 143
    steps = max(int(p.parent.name.split("_")[1]) for p in saved.glob("step_*/state.json"))
    assert steps > 0
    done = run(*line, f"steps={steps + 1}", env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert "resumed from" in done.stderr
    assert (tmp_path / "out" / "report.html").is_file()


# -- configs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_studies(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    import torch

    found = read_study(path)
    assert found.name == path.stem
    evaluation_of(found, torch.device("cpu"))
    runs = {name: run_config(found, name) for name in found.runs}
    assert len({f"{run.task} {run.data}" for run in runs.values()}) == len(
        runs
    )  # all are different
    made = {name: run.task for name, run in runs.items() if run.task.kind == "tokenizer"}
    configs = {name: task.tokenizer for name, task in made.items()}
    if path.stem.startswith("perturbation"):
        kinds = {one.quantizer.kind for one in configs.values()}
        assert found.evaluate.gfid.probe and {"vq", "fsq", "binary"} <= kinds
        perturbed = [n for n, one in configs.items() if "latent_pert" in str(one.regularizers)]
        assert perturbed and len(perturbed) < len(configs)
    if path.stem == "perturbation":
        assert len(configs) >= 11 and len(perturbed) >= 3 and "lfq" in kinds
        assert len({one.encoder.latents.count for one in configs.values()}) >= 3


def test_names_may_be_numbers(small_study):
    """What was typed is the name: neither an octal number nor a float."""
    path = small_study()
    text = path.read_text("utf-8").replace("name: s\n", "name: 0042\n", 1)
    text = text.replace("  fsq: ", "  010: ").replace("  lfq:", "  1e3:")
    path.write_text(text, encoding="utf-8")
    found = read_study(path)
    assert found.name == "0042" and list(found.runs) == ["010", "vq", "1e3"]
    assert run_config(found, "010").name == "010"


def test_overrides_reach_the_study_or_its_trainings(small_study):
    found = read_study(small_study(), ["evaluate.limit=5", "steps=7", "data.val_count=9"])
    assert found.evaluate.limit == 5
    for name in found.runs:
        config = run_config(found, name)
        assert (config.steps, config.data.val_count, config.name) == (7, 9, name)
    assert run_config(found, "vq").task.tokenizer.quantizer.kind == "vq"


@pytest.mark.parametrize(
    ("changes", "overrides", "words"),
    [
        ({"rnus": {}}, (), ("rnus", "runs")),
        ({"runs": {}}, (), ("runs", "at least 1")),
        ({"runs": {"a/b": {}}}, (), ("a/b", "folder name")),
        ({"evaluate": {"pfid": {"mode": "some"}}}, (), ("evaluate.pfid.mode", "some", "quick")),
        ({"evaluate": {"limt": 3}}, (), ("limt", "limit")),
        ({"evaluate": {"protocols": ["rfdi"]}}, (), ("rfdi", "rfid")),
        ({"evaluate": {"gfid": {"probe": "huge"}}}, (), ("huge", "tiny")),
        ({"runs": {"a": {"task.tokenizer.quantizer": 1}}}, (), ("runs.a", "quantizer")),
        ({"train": "nowhere.yaml"}, (), ("nowhere.yaml", "no such")),
        ({}, ("stpes=3",), ("stpes", "steps")),
        ({}, ("only=b",), ("only=b", "fsq, vq, lfq")),
        ({"evaluate": {"report": "x.html"}}, (), ("report", "own folder")),
        ({"out": "x/{foo}"}, (), ("out", "{foo}", "{name}")),
        ({"out": "x/{"}, (), ("out", "{name}")),
    ],
)
def test_mistakes_are_one_line(small_study, in_process, changes, overrides, words):
    done = go(small_study(**changes), *overrides)
    lines = done.output.strip().splitlines()
    assert done.exit_code == 1 and len(lines) == 1 and lines[0].startswith("error: "), done.output
    assert all(word in lines[0] for word in words), lines[0]
    assert not in_process  # nothing was trained before


def test_other_errors_keep_their_type(fails):
    with fails(ConfigError, "no such config"):
        read_study("nowhere.yaml")


# -- the verdict -----------------------------------------------------------------------------------


def results_of(points):
    """Results with (rFID, pFID, gFID) of some tokenizers."""
    rows, pairs = [], {}
    reference = Reference(name="x", split="val", manifest="m", count=64)
    features = Network(name="n", sha256="0")
    for place, (r, p, g) in enumerate(points):
        name = f"t{place}"
        pairs[name] = [f"{name}/probe-tiny"]
        common = {"reference": reference, "features": features, "count": 64, "length": 4}
        rows.append(Row(metric="rFID", value=r, run=name, **common))
        rows.append(Row(metric="pFID-v1-quick", value=p, run=name, **common))
        own = {**common, "run": pairs[name][0], "sampling": {"generator": {"guidance": 1.0}}}
        rows.append(Row(metric="gFID", value=g, **own))
    return Results(rows=tuple(rows), facts={"pairs": pairs})


def test_a_verdict_on_four_tokenizers_claims_nothing():
    found = verdict(results_of([(1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4)]))
    assert {one["spearman"] for one in found["correlations"]} == {1.0}
    sentence, doubt = found["sentences"]  # equal pFID and rFID are doubtful too
    assert "not above rFID for t0, t1, t2, t3" in doubt
    assert "With 4 tokenizers nothing may be claimed" in sentence and "0.083" in sentence
    assert "Spearman" in verdict_text(found)


def test_a_verdict_on_many():
    scattered = [5, 2, 9, 1, 7, 3, 8, 4, 6, 10, 12, 11]
    found = verdict(results_of([(r, p, p) for p, r in enumerate(scattered, 1)]))
    sentence = found["sentences"][0]
    assert "1.00 (n = 12" in sentence and "pFID-v1-quick goes with gFID" in sentence
    assert "95% bootstrap" in sentence and "nothing of other data" in sentence
    same = verdict(results_of([(p, p, p) for p in range(1, 13)]))
    assert "do not tell which of the two" in same["sentences"][0]
    flat = verdict(results_of([(1, p, p) for p in range(1, 7)]))
    assert "undefined" in flat["sentences"][0]
    assert json.loads(json.dumps(found)) == found


def test_a_verdict_names_what_makes_its_numbers_doubtful():
    found = results_of([(1, 2, 3), (3, 2, 3)])
    fresh = [r.model_copy(update={"metric": "gFID-untrained", "value": 3.0 + place})
             for place, r in enumerate(found.find("gFID"))]  # fmt: skip
    doubts = verdict(found.model_copy(update={"rows": (*found.rows, *fresh)}))["sentences"][1:]
    assert len(doubts) == 2
    assert "for t0/probe-tiny: there gFID tells how" in doubts[0]
    assert "pFID-v1-quick is not above rFID for t1:" in doubts[1]


def without(results, metric, runs):
    """Results in which some runs have no such number."""
    rows = [r for r in results.rows if r.metric != metric or r.run not in runs]
    return results.model_copy(update={"rows": tuple(rows)})


def test_a_verdict_counts_the_tokenizers_that_have_both():
    """Six with rFID, six with pFID, three with both: no claim."""
    found = results_of([(p, p, p) for p in range(1, 10)])
    found = without(found, "rFID", ["t6", "t7", "t8"])
    found = without(found, "pFID-v1-quick", ["t0", "t1", "t2"])
    assert [one["n"] for one in verdict(found)["correlations"]] == [6, 6]
    sentence = verdict(found)["sentences"][0]
    assert "With 3 tokenizers nothing may be claimed" in sentence and "n = 3" in sentence
    assert "Left out, with only one of the two: t0/probe-tiny, t1/" in sentence


def test_a_verdict_without_a_tokenizer_in_common_is_one_sentence():
    found = results_of([(p, p, p) for p in range(1, 13)])
    found = without(found, "rFID", [f"t{i}" for i in range(6)])
    found = without(found, "pFID-v1-quick", [f"t{i}" for i in range(6, 12)])
    (sentence,) = verdict(found)["sentences"]
    assert "no tokenizer has both pFID-v1-quick and rFID (6 and 6 have one of them)" in sentence


def test_no_relation_does_not_beat_a_perfectly_inverse_one():
    scattered = [5, 2, 9, 1, 7, 3, 8, 4, 6, 10, 12, 11]
    none = [7, 1, 12, 4, 9, 2, 11, 3, 8, 6, 5, 10]  # rho = 0.21 with 1..12
    inverse = verdict(results_of([(-p, x, p) for p, x in enumerate(none, 1)]))["sentences"][0]
    assert "rFID goes inversely with gFID" in inverse
    assert "no monotone relation of pFID-v1-quick" in inverse
    assert "do not tell which of the two" in inverse
    # The other way round, and what has strength in the claimed direction still wins.
    swapped = verdict(results_of([(x, -p, p) for p, x in enumerate(none, 1)]))["sentences"][0]
    assert "do not tell which of the two" in swapped
    right = verdict(results_of([(-p, p, p) for p, _ in enumerate(scattered, 1)]))["sentences"][0]
    assert "pFID-v1-quick orders the tokenizers by gFID better than rFID" in right


def test_two_feature_networks_are_two_verdicts():
    one = results_of([(p, p, p) for p in range(1, 7)])
    other = Network(name="m", sha256="1")
    more = [r.model_copy(update={"features": other}) for r in one.rows if r.metric != "gFID"]
    found = verdict(one.model_copy(update={"rows": (*one.rows, *more)}))["sentences"]
    assert sum("rank correlation" in said for said in found) == 2


def test_a_verdict_on_few_images_says_so():
    found = results_of([(p, p, p) for p in range(1, 7)])
    rows = [r.model_copy(update={"few": "9 images for 320 features"}) for r in found.rows]
    said = verdict(found.model_copy(update={"rows": tuple(rows)}))["sentences"][-1]
    assert said.startswith("Doubt: rFID[n, x], pFID-v1-quick[n, x], gFID[n, x]: 9 images for 320")


def test_a_verdict_without_points():
    assert "No correlation" in verdict(Results())["sentences"][0]
