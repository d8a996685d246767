"""Stages of a tokenizer: frozen parts stay bit for bit, config.json says where all came from."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from tests.support.caches import change_meta
from tests.support.training import STATEFUL, TINY, cache_tree, forget_accelerate
from vistok.cli.generate import generate
from vistok.cli.info import info
from vistok.config import ConfigError, validate
from vistok.core.errors import InputError
from vistok.eval.systems.runs import RunError, resolve
from vistok.pretrained.identity import identify
from vistok.storage.hub import WEIGHTS
from vistok.storage.lineage import COMPATIBLE, pairing
from vistok.storage.weights import file_sha256, read_safetensors, sha256
from vistok.tokenizer import Tokenizer, TokenizerConfig
from vistok.train.config import TrainConfig
from vistok.train.loop import train

GENERATOR = {"kind": "autoregressive", "transformer": {"width": 16, "depth": 1, "heads": 2}}


def stage(parent: Path, base: dict = TINY, freeze=("encoder", "quantizer"), **tokenizer) -> dict:
    """A stage that begins with a run's weights."""
    tree = copy.deepcopy(base)
    tree["task"] |= {"init": str(parent), "freeze": list(freeze)}
    tree["task"]["tokenizer"] |= tokenizer
    return tree


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """parent, child (other decoder), grandchild; a generator of the parent's tokens."""
    place = tmp_path_factory.mktemp("family")

    def run(tree: dict, folder: str, **overrides) -> Path:
        forget_accelerate()
        return train(validate(TrainConfig, {**tree, "out": str(place / folder), **overrides}))

    parent = run(TINY, "parent", name="parent", steps=4)
    child = run(stage(parent), "child", name="post", steps=3)
    grand = run(stage(child), "grand", name="again", steps=3)
    tokens = run(cache_tree(parent), "tokens")
    data = {"kind": "tokens", "path": f"{tokens}/train", "val_path": f"{tokens}/val"}
    tree = {"task": {"kind": "generator", "generator": GENERATOR}, "data": data, "trackers": []}
    return parent, child, grand, run(tree, "generator", steps=2, batch_size=8)


def test_frozen_parts_stay_bit_for_bit(run):
    """With everything that has state: EMA codebook, usage, revival, perturbation, averaging."""
    parent = run(STATEFUL, "parent", steps=4)
    tree = stage(parent, STATEFUL)
    tree["task"]["losses"][1] |= {"start": 0, "discriminator_start": 0}  # fresh, at once
    child = run(tree, "child", steps=4, warmup=1)
    before, after = (read_safetensors(f / "model" / WEIGHTS) for f in (parent, child))
    front = [key for key in before if not key.startswith("decoder.")]
    assert {key.split(".")[0] for key in front} == {"encoder", "quantizer"}
    assert all(torch.equal(before[key], after[key]) for key in front)
    assert not all(torch.equal(before[key], after[key]) for key in set(before) - set(front))
    lines = [json.loads(line) for line in (child / "metrics.jsonl").read_text().splitlines()]
    assert any("discriminator_grad_norm" in line for line in lines if line["step"] == 1)


def test_the_lineage_is_a_chain(family, capsys):
    parent, child, grand, _ = family
    identities = [identify(one)[1] for one in (parent, child, grand)]
    assert identities[0].lineage == ()
    first, second = identities[2].lineage
    assert identities[1].lineage == (first,)
    assert (first.stage, first.kind, first.changed) == ("post", "fine-tuning", ("decoder",))
    assert (second.stage, second.parents[0].name) == ("again", str(child))
    for step, identity in ((first, identities[0]), (second, identities[1])):
        (one,) = step.parents
        assert (one.sha256, one.codes_sha256) == (identity.sha256, identity.codes_sha256)
        assert one.parts == ("encoder", "quantizer", "decoder")
    summary = json.loads((grand / "summary.json").read_text())
    assert identities[1].sha256 in json.dumps(summary)
    said = CliRunner().invoke(info, [str(grand)]).output
    assert f"fine-tuning (again) of {child} (sha256 {identities[1].sha256[:12]}): decoder" in said
    assert "lineage, 2 back" in said and f"fine-tuning (post) of {parent}" in said


def test_a_generator_goes_with_the_child_and_says_so(family, tmp_path):
    parent, child, grand, generator = family
    systems = {s.tokenizer.name: s.generators for s in resolve([parent, child, grand, generator])}
    assert [g.name for g in systems["parent"]] == ["generator"] and not systems["parent"][0].fit
    for name in ("child", "grand"):
        assert [g.name for g in systems[name]] == [f"{name}/generator"]
        assert systems[name][0].fit == COMPATIBLE
    (alone,) = resolve([grand, generator])
    assert alone.generators[0].name == "generator" and alone.generators[0].fit == COMPATIBLE
    out = tmp_path / "samples.png"
    words = [str(generator), str(grand), "--count", "1", "--out", str(out)]
    done = CliRunner().invoke(generate, words)
    assert done.exit_code == 0, done.output
    assert f"{grand}: compatible: decoder changed only" in done.output and out.is_file()
    words = [str(generator), str(parent), "--count", "1", "--out", str(out), "--overwrite"]
    assert "compatible" not in CliRunner().invoke(generate, words).output


def test_any_other_change_is_refused_with_the_reason(run, family, fails):
    parent, _, _, generator = family
    whole = run(stage(parent, freeze=()), "whole", name="whole", steps=3)
    with fails(RunError, "tokens of .*parent.*its encoder changed since then, in whole"):
        resolve([whole, generator])
    done = CliRunner().invoke(generate, [str(generator), str(whole), "--out", "x.png"])
    assert done.exit_code == 1 and "its encoder changed since then, in whole" in done.output


def test_a_cache_goes_on_with_a_child(run, family):
    """The rest of an interrupted cache may come from a tokenizer of the same tokens."""
    parent, child, _, _ = family
    tokens = run(cache_tree(parent), "mixed")
    whole = {p.name: p.read_bytes() for p in (tokens / "train").iterdir()}
    change_meta(tokens / "train", written=20)
    run(cache_tree(child), "mixed")
    assert {p.name: p.read_bytes() for p in (tokens / "train").iterdir()} == whole


def test_frozen_weights_that_are_fed_other_pixels_make_other_tokens(run, family):
    parent = family[0]
    child = run(stage(parent, input_space={"kind": "pixels", "std": 0.25}), "fed", steps=3)
    _, identity = identify(child)
    (step,) = identity.lineage
    assert step.changed == ("decoder", "input_space")
    pair = pairing(identify(parent)[1].record(), identity)
    assert not pair.fits and "its input_space changed since then" in pair.text


def test_a_next_stage_with_a_new_decoder_says_so(run, family):
    tree = stage(family[0], freeze=["encoder"])
    tree["task"]["init"] = {"path": str(family[0]), "parts": ["encoder"]}
    (step,) = identify(run(tree, "next", steps=3))[1].lineage
    assert (step.kind, step.changed) == ("next stage", ("decoder",))


def test_a_resume_from_another_parent_is_refused(run, family, tmp_path, fails):
    parent = shutil.copytree(family[0], tmp_path / "parent")
    tree = stage(parent)
    run(tree, "resumed", steps=4)
    other = run(TINY, "parent2", steps=4, seed=9)
    (parent / "model" / WEIGHTS).write_bytes((other / "model" / WEIGHTS).read_bytes())
    (parent / "model" / "training.json").unlink()
    with fails(ConfigError, "init .*parent"):
        run(tree, "resumed", steps=8)


def test_a_damaged_lineage_is_one_line(family, tmp_path, fails):
    child = shutil.copytree(family[1], tmp_path / "child")
    path = child / "model" / "config.json"
    described = json.loads(path.read_text())
    described["lineage"][0]["parents"][0]["sha256"] = "../../x"
    path.write_text(json.dumps(described))
    with fails(ConfigError, "config.json: lineage: sha256='../../x' is no hash"):
        Tokenizer.from_pretrained(child / "model")
    with fails(ConfigError, "lineage: sha256='../../x' is no hash"):
        resolve([child, family[3]])


def test_lineage_is_saved_and_pushed_with_its_licenses(family, tmp_path):
    tokenizer = Tokenizer.from_pretrained(family[1] / "model")
    tokenizer.save_pretrained(tmp_path / "again")
    again = Tokenizer.from_pretrained(tmp_path / "again")
    assert again.lineage == tokenizer.lineage
    assert file_sha256(again.state_dict()) == sha256(tmp_path / "again" / WEIGHTS)
    step = tokenizer.lineage[0]
    parent = replace(step.parents[0], license="research only")
    tokenizer.lineage = (replace(step, parents=(parent,)),)
    with pytest.raises(InputError, match="came from, are licensed 'research only'"):
        tokenizer.push_to_hub("owner/name")


def test_a_tokenizer_without_ancestors_has_no_lineage():
    tokenizer = Tokenizer(validate(TokenizerConfig, TINY["task"]["tokenizer"]))
    assert "lineage" not in tokenizer.describe()
