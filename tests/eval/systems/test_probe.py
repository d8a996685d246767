"""The AR probe: any discrete spec gets one, it is trained once, and found again."""

import json
from types import SimpleNamespace

import pytest
import torch
import yaml

from vistok.config import ConfigError, to_yaml, validate
from vistok.data import Photos, PhotosConfig
from vistok.eval.config import EvalConfig
from vistok.eval.measure import evaluate
from vistok.eval.reference.training_set import Picked, training_set
from vistok.eval.systems import training
from vistok.eval.systems.probe import PRESETS, recipe, vocabulary
from vistok.eval.systems.runs import resolve
from vistok.eval.systems.training import TrainingError, finished
from vistok.generators import autoregressive
from vistok.tokens import TokenSpec
from vistok.train.config import TrainConfig


@pytest.fixture
def made(runs, small_probe):
    """Evaluate the tokenizer run with its probe; its results."""

    def make(**given):
        gfid = {"probe": str(small_probe), "seeds": 1, **given.pop("gfid", {})}
        given = {"protocols": ("gfid",), "limit": 16, "gfid": gfid, **given}
        return evaluate([runs[0]], EvalConfig(**given))

    return make


# -- which head ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vocab", "branches", "expected", "head"),
    [
        ((4096,), 1, None, "joint"),
        ((2,) * 12, 1, (4096,), "joint"),
        ((8, 8, 5), 1, (320,), "joint"),
        ((2,) * 64, 1, None, "bernoulli"),
        ((2**18,), 1, (512, 512), "causal"),
        ((64000,), 1, (250, 256), "causal"),
        ((4096, 4096), 2, None, "causal"),
        ((16, 16), 2, None, "causal"),
        ((64,) * 16, 1, None, "causal"),
        ((2**18, 4), 1, (512, 512, 4), "causal"),
    ],
)
def test_every_discrete_spec_gets_a_head(vocab, branches, expected, head):
    spec = TokenSpec(blocks=((2,),), vocab=vocab, branches=branches)
    assert vocabulary(spec) == expected
    config = autoregressive.AutoregressiveConfig(
        transformer={"width": 8, "depth": 1, "heads": 2}, regroup=expected
    )
    with torch.device("meta"):
        assert autoregressive.Autoregressive(config, spec).head_kind == head


def test_what_gets_none_says_why(fails):
    with fails(ValueError, "continuous"):
        vocabulary(TokenSpec(blocks=((2,),), vocab=(), dim=4))
    with fails(ValueError, "65537", "no factors"):
        vocabulary(TokenSpec(blocks=((2,),), vocab=(65537,)))


@pytest.mark.parametrize("quantizer", ["fsq", "vq", "lfq", "bsq", "binary", "binary_sign"])
def test_all_quantizers(tmp_path, make_tokenizer, small_probe, in_process, quantizer):
    make_tokenizer(quantizer).save_pretrained(tmp_path / "run" / "model")
    data = {"kind": "photos", "size": 8, "val_count": 8, "count": 20}
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump({"data": data}))
    options = EvalConfig(protocols=("gfid",), gfid={"probe": str(small_probe), "seeds": 1})
    results = evaluate([tmp_path / "run"], options)
    assert results.find("gFID", "run/small", length=4)[0].value > 0
    assert not results.facts["skipped"]


# -- training it once ------------------------------------------------------------------------------


def test_a_probe_is_trained_once_and_found_again(runs, made, in_process):
    first = made()
    assert in_process == ["tokens", "small"]
    again = made()
    assert in_process == ["tokens", "small"]
    assert [row.value for row in first.rows] == [row.value for row in again.rows]
    assert [run["name"] for run in first.runs] == ["tok", "tok/small"]
    assert first.facts["pairs"] == {"tok": ["tok/small"]}
    probe = first.runs[1]
    assert probe["kind"] == "generator" and "probes/small-" in probe["folder"]
    made(seed=1)  # another seed is another probe
    assert in_process == ["tokens", "small"] * 2


def test_rows_have_both_references_and_every_guidance(made, in_process):
    results = made(gfid={"guidance": (2.0,), "train_images": 12})
    found = [(r.metric, r.length, r.guidance, r.reference.split) for r in results.rows]
    assert found == [
        *(("gFID", 4, 1.0, "train"), ("gFID-val", 4, 1.0, "val")),
        *(("gFID", 4, 2.0, "train"), ("gFID-val", 4, 2.0, "val")),
        *(("gFID", 1, 1.0, "train"), ("gFID-val", 1, 1.0, "val")),
        *(("gFID", 2, 1.0, "train"), ("gFID-val", 2, 1.0, "val")),
        ("gFID-untrained", 4, 1.0, "train"),
    ]
    first = results.rows[0]
    assert first.reference.count == 12 and "12 of 1000000" in first.reference.described
    assert first.reference.manifest != results.rows[1].reference.manifest
    assert first.condition == "class" and "not training statistics" in results.rows[1].note


def test_it_goes_on_after_a_kill_between_the_stages(runs, made, in_process, monkeypatch):
    work = training._run

    def killed(command, lock, on_cpu):
        if len(in_process) == 1:
            raise KeyboardInterrupt
        return work(command, lock, on_cpu)

    monkeypatch.setattr("vistok.eval.systems.training._run", killed)
    with pytest.raises(KeyboardInterrupt):
        made()
    (folder,) = (runs[0] / "probes").iterdir()
    before = (folder / "tokens/train/meta.json").stat().st_mtime_ns
    monkeypatch.setattr("vistok.eval.systems.training._run", work)
    assert made().find("gFID")
    assert in_process == ["tokens", "small"]  # the tokens were not cached again
    assert (folder / "tokens/train/meta.json").stat().st_mtime_ns == before
    facts = json.loads((folder / "probe.json").read_text())
    assert facts["tokenizer"] == resolve([runs[0]])[0].tokenizer.sha256


def test_unlabeled_images_get_a_probe_without_classes(
    tmp_path, make_tokenizer, small_probe, in_process
):
    from PIL import Image

    make_tokenizer("vq").save_pretrained(tmp_path / "run" / "model")
    (tmp_path / "images" / "a").mkdir(parents=True)
    for i in range(12):
        place = tmp_path / "images" / ("a" if i % 2 else ".")
        Image.new("RGB", (9, 8), (20 * i, 9, 99)).save(place / f"{i}.png")
    path = str(tmp_path / "images")
    data = {"kind": "folder", "path": path, "val_path": path, "size": 8, "crop": "random"}
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump({"data": data}))
    own = {"probe": str(small_probe), "guidance": (1.0, 3.0)}
    options = EvalConfig(protocols=("gfid",), gfid=own)
    results = evaluate([tmp_path / "run"], options)
    assert {row.condition for row in results.rows} == {"none"}
    assert {row.guidance for row in results.rows} == {1.0}
    assert "nothing to guide" in results.facts["skipped"][0]["reason"]
    assert results.find("gFID")[0].crop == "center"  # although training crops at random


def test_without_training_images_it_says_so(runs, small_probe, tmp_path, in_process):
    from PIL import Image

    (tmp_path / "val" / "a").mkdir(parents=True)
    for i in range(4):
        Image.new("RGB", (8, 8), (60 * i, 9, 99)).save(tmp_path / "val" / "a" / f"{i}.png")
    data = {"kind": "folder", "val_path": str(tmp_path / "val"), "size": 8}
    options = EvalConfig(
        protocols=("gfid",), gfid={"probe": str(small_probe), "seeds": 1}, data=data
    )
    skipped = evaluate([runs[0]], options).facts["skipped"]
    assert len(skipped) == 1 and "no training images" in skipped[0]["reason"]
    both = evaluate(runs, EvalConfig(protocols=("gfid",), data=data, gfid={"seeds": 1}))
    assert not both.find("gFID") and both.find("gFID-val")
    assert "give path" in both.facts["skipped"][0]["reason"]


# -- its parts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", PRESETS)
def test_presets(which):
    chosen = recipe(which)
    assert chosen.name == f"probe-{which}"
    assert chosen.tree["task"]["generator"]["condition"]["dropout"] > 0


def test_mistakes_in_recipes(tmp_path, fails):
    with fails(ConfigError, "gfid.probe=huge", "tiny, s, b"):
        recipe("huge")
    (tmp_path / "a.yaml").write_text("task: {kind: generator}\nstpes: 3\n")
    with fails(ConfigError, "stpes", "steps"):
        recipe(str(tmp_path / "a.yaml"))
    (tmp_path / "a.yaml").write_text("task: {kind: cache, tokenizer: x}\n")
    with fails(ConfigError, "a probe is a generator", "cache"):
        recipe(str(tmp_path / "a.yaml"))


def test_a_choice_of_training_images_is_keyed_and_recorded():
    whole = Photos(PhotosConfig(size=8, count=50)).open("train")
    some, same = Picked(whole, 10), Picked(whole, 10)
    assert some.rows.tolist() == same.rows.tolist() == sorted(set(some.rows.tolist()))
    assert some.rows.tolist() != list(range(10))
    assert torch.equal(some[3].pixels, whole[int(some.rows[3])].pixels) and some[3].index == 3
    fewer = Picked(whole, 9).record()["manifest"]
    assert len({some.record()["manifest"], whole.record()["manifest"], fewer}) == 3
    run = SimpleNamespace(
        config={"data": {"kind": "photos", "size": 8, "count": 50}},
        tokenizer=SimpleNamespace(shape=SimpleNamespace(sides=(8, 8))),
    )
    assert len(training_set(run, {}, None).dataset) == 50
    assert "8x8" in training_set(run, {"size": 16}, None)


def test_finished_means_this_config_and_all_its_steps(tmp_path, tree, in_process):
    given = {
        "name": "a",
        "out": str(tmp_path / "a"),
        "task": {"kind": "tokenizer", "tokenizer": tree("fsq")},
        "data": {"kind": "photos", "size": 8, "val_count": 4},
        "steps": 1,
        "batch_size": 4,
        "trackers": [],
    }
    config = validate(TrainConfig, given)
    assert not finished(config)
    training.train(config)
    assert finished(config)
    assert not finished(validate(TrainConfig, {**given, "steps": 2}))
    # Begun again with more steps, and killed: its config is there, its steps are not.
    longer = validate(TrainConfig, {**given, "steps": 2})
    (tmp_path / "a" / "config.yaml").write_text(to_yaml(longer))
    assert not finished(longer)


@pytest.mark.slow
def test_an_error_of_the_training_process_is_one_line(tmp_path, tree, fails):
    given = {
        "out": str(tmp_path / "a"),
        "task": {"kind": "tokenizer", "tokenizer": tree("fsq")},
        "data": {"kind": "folder", "path": str(tmp_path / "nowhere"), "val_share": 0.5, "size": 8},
    }
    with fails(TrainingError, "no such folder", "resumes it"):
        training.train(validate(TrainConfig, given))
