"""Distances of code usage: against counts by hand, the floor, regrouped vocabularies, batches."""

import json
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

from vistok.data import Photos, PhotosConfig
from vistok.eval.__main__ import evaluate
from vistok.eval.images import exact
from vistok.eval.protocols import code_usage, generated
from vistok.eval.reference.training_set import Picked, TrainingSet
from vistok.eval.results.rows import Results
from vistok.metrics.code_distance import code_columns


def by_hand(a, b):
    """Total variation between two lists of codes."""
    p, q = Counter(a), Counter(b)
    return sum(abs(p[c] / len(a) - q[c] / len(b)) for c in {*p, *q}) / 2


@pytest.fixture
def rows(runs, tmp_path):
    """rows(*overrides) -> of an evaluation of a tokenizer and an untrained generator."""

    def run(*overrides, name="one"):
        report = tmp_path / name / "report.html"
        rest = ["protocols=[code_usage]", "device=cpu", f"report={report}", *overrides]
        done = CliRunner().invoke(evaluate, [*map(str, runs), *rest])
        assert done.exit_code == 0, done.output
        return Results.load(report.with_name("results.json")).rows

    return run


def test_rows(rows):
    found = rows("code_usage.samples=12", "batch=5")
    assert [row.metric for row in found] == [
        *("code-TV", "code-JSD", "code-TV-position", "code-JSD-position"),
    ]
    for row in found:
        assert row.run == "gen" and row.count == 12 and row.guidance == 1.0
        assert set(row.weights) == {"tokenizer", "generator"} and row.seed == 0
        assert 0 < row.measured["floor"] < 1 and row.value > row.measured["floor"]
        assert row.reference.split == "train" and row.reference.count == 24
        assert "real: training images" in row.note and "one codebook" in row.note
    total, _, each, _ = found
    assert each.value > total.value and each.measured["floor"] > total.measured["floor"]
    again = rows("code_usage.samples=12", "batch=12", name="two")
    assert [row.value for row in again] == [row.value for row in found]
    assert [row.measured for row in again] == [row.measured for row in found]


class Copies:
    """A generator that gives the tokens of real images: sample i is image i."""

    def __init__(self, tokens, regroup=None):
        self.tokens = tokens if regroup is None else tokens.regroup(regroup)

    def sample(self, condition, index, **rest):
        return self.tokens.select(index)


@pytest.mark.parametrize("regroup", [None, (2, 6)])
def test_real_tokens_are_at_the_floor(context, make_tokenizer, monkeypatch, regroup):
    found = context(make_tokenizer("fsq"), batch=7)
    data = Picked(Photos(PhotosConfig(size=8)).open("train", augment=False), 40)
    pixels = torch.stack([data[i].pixels for i in range(40)]) / 255
    model = Copies(found.tokenizer.encode(pixels[1::2]), regroup)
    monkeypatch.setattr(generated, "prepared", lambda *rest: (model, "copies"))
    monkeypatch.setattr(generated, "conditioned", lambda *rest: None)
    monkeypatch.setattr(generated, "labels_of", lambda *rest: None)
    monkeypatch.setattr(generated, "settings", lambda *rest: None)
    monkeypatch.setattr(generated, "common_fields", lambda *rest: {"run": "copies"})
    config = code_usage.CodesPass(length=4, samples=20)
    generator = SimpleNamespace(name="copies")
    real = TrainingSet(data, data.record())
    found.job = SimpleNamespace(
        protocol=code_usage.CodeUsage(), config=config, generator=generator, data=real
    )
    with exact():
        rows = code_usage.CodeUsage().run(found, config)
    # Samples are the second half themselves, which is what the floor measures.
    assert [row.value for row in rows] == [row.measured["floor"] for row in rows]
    codes = found.tokenizer.encode(pixels).indices.long()
    joint = codes[..., 0]
    one, two = joint[0::2], joint[1::2]
    expected = by_hand(one.flatten().tolist(), two.flatten().tolist())
    assert rows[0].value == pytest.approx(expected, abs=1e-12)
    each = [by_hand(one[:, p].tolist(), two[:, p].tolist()) for p in range(4)]
    assert rows[2].value == pytest.approx(sum(each) / 4, abs=1e-12)


def test_absent_positions_and_odd_sets(context, make_tokenizer):
    found = context(make_tokenizer("fsq"), count=7)
    columns = code_columns(found.spec)
    with exact():
        views, which = code_usage.real_images(found, "no training images")
        one, two = code_usage.real_halves(found, columns, views, 100)
        tokens = found.tokenizer.encode(found.views.pick(range(3)))
        cut = code_usage.codes_of(found, tokens.prefix(2), columns)
    assert len(one) == len(two) == 3 and which == "val images"
    assert (cut[:, 2:] == -1).all() and (cut[:, :2] >= 0).all()
    assert torch.equal(one[0], code_usage.codes_of(found, tokens, columns)[0])


def test_what_does_not_apply(runs, config, tree):
    from vistok.eval.systems.runs import resolve

    (alone,) = resolve([runs[0]])
    (skip,) = code_usage.CodeUsage().jobs(alone, config())
    assert "gfid.probe" in skip.reason
    continuous = SimpleNamespace(
        generators=[1], tokenizer=SimpleNamespace(spec=SimpleNamespace(vocab=()))
    )
    (skip,) = code_usage.CodeUsage().jobs(continuous, config())
    assert "continuous" in skip.reason
    (both,) = resolve(runs)
    jobs = code_usage.CodeUsage().jobs(both, config("code_usage.guidance=2"))
    assert [job.config.guidance for job in jobs] == [1.0, 2.0]
    assert isinstance(jobs[0].config, generated.Pass)
    json.dumps(jobs[0].config.model_dump(mode="json"))
