"""gFID: both references, even classes, keyed samples, baseline, prefixes."""

import pytest
import torch

from tests.support.eval_results import generated as guided
from tests.support.eval_results import row
from vistok.eval.config import EvalConfig
from vistok.eval.context import Context
from vistok.eval.images import Views, exact
from vistok.eval.protocols import generated, gfid
from vistok.eval.protocols.base import Job, Skip
from vistok.eval.reference.sets import SetMeasures
from vistok.eval.reference.training_set import training_set
from vistok.eval.report.naming import named
from vistok.eval.results.rows import Row
from vistok.eval.systems.runs import System, open_data, resolve


@pytest.fixture
def system(runs, features):
    (system,) = resolve(list(runs))

    def make(batch=16):
        return Context(system.tokenizer, Views(open_data(system.tokenizer), batch), features)

    return make, system.generators[0]


def run(context, generator, one, samples, real):
    config = one.model_copy(update={"samples": samples})
    context.job = Job(gfid.GFID(), config, generator, real)
    return gfid.GFID().run(context, config)


def test_rows(system):
    make, generator = system
    context = make()
    real = training_set(context.run, {"count": 40}, 30)
    rows = []
    with exact():
        for one in generated.passes(context.spec, (1.0, 2.0)):
            rows += run(context, generator, one, 21, real)
    found = [(r.metric, r.length, r.guidance, r.reference.count) for r in rows]
    assert found == [
        *(("gFID", 4, 1.0, 30), ("gFID-val", 4, 1.0, 24)),
        *(("gFID", 4, 2.0, 30), ("gFID-val", 4, 2.0, 24)),
        *(("gFID", 1, 1.0, 30), ("gFID-val", 1, 1.0, 24)),
        *(("gFID", 2, 1.0, 30), ("gFID-val", 2, 1.0, 24)),
        ("gFID-untrained", 4, 1.0, 30),
    ]
    assert all(r.run == "gen" and r.condition == "class" and r.count == 21 for r in rows)
    assert "30 of 40" in rows[0].note and "not training statistics" in rows[1].note
    assert "seed 0" in rows[-1].note
    assert rows[0].display == "gFID[vistok-cnn, photos]" and rows[0].reference.split == "train"
    assert rows[1].display == "gFID-val[vistok-cnn, photos]" and rows[1].reference.split == "val"


def test_further_measures_of_the_samples(system):
    make, generator = system
    context = make()
    with exact():
        rows = run(
            context, generator, generated.Pass(length=4, metrics=("kid", "precision")), 24, "none"
        )
    found = {row.metric: row for row in rows}
    assert list(found) == ["gFID-val", "KID", "precision"]
    assert all(r.run == "gen" and r.count == 24 and "tokens of tok" in r.note for r in rows)
    asked = EvalConfig(gfid={"guidance": (1.0,), "metrics": ("fid", "kid", "ms-ssim"), "seeds": 1})
    jobs = gfid.GFID().jobs(System(context.run, (generator,)), asked)
    assert [job.config.metrics for job in jobs] == [("kid",), (), (), ()]


def test_a_job_for_each_pass_knows_what_it_depends_on(system):
    make, generator = system
    asked = EvalConfig(gfid={"guidance": (1.0, 1.5), "seeds": 1}, limit=9)
    jobs = gfid.GFID().jobs(System(make().run, (generator,)), asked)
    assert [(j.config.length, j.config.guidance) for j in jobs] == [
        (4, 1.0), (4, 1.5), (1, 1.0), (2, 1.0), (4, 1.0)
    ]  # fmt: skip
    assert len({j.config.model_dump_json() for j in jobs}) == 5
    assert all(j.generator is generator and j.config.training["count"] == 9 for j in jobs)


def test_batches_change_nothing_and_classes_are_even(system):
    make, generator = system
    with exact():
        found = []
        for batch in (21, 4):
            measures = SetMeasures(context := make(batch), 21)
            one = generated.Pass(length=4)
            generated.sample_into(measures, context, generator.generator, one, 21, "")
            found.append(measures.parts[0].decoded.pool.reduce())
    one, two = found
    assert one.count == two.count == 21
    assert one.mean == pytest.approx(two.mean, abs=1e-5)
    labels = generated.labels_of(generator.generator, torch.arange(21))
    assert labels.bincount().tolist() == [3] * 7


def test_samples_are_resized_before_they_are_measured(system):
    make, generator = system
    context, one = make(), generated.Pass(length=4, resize=5)
    decoded = generated.decoded(context, generator.generator, torch.arange(3), one)
    assert decoded.shape == (3, 3, 5, 5) and decoded.dtype == torch.uint8
    with exact():
        rows = run(context, generator, one, 3, "none")
    assert [row.size for row in rows] == [(5, 5)]
    asked = EvalConfig(gfid={"resize": 5})
    jobs = gfid.GFID().jobs(System(context.run, (generator,)), asked)
    assert {job.config.resize for job in jobs} == {5}


def test_random_labels_are_uniform_and_keyed_by_the_sample(system):
    model = system[1].generator
    labels = generated.labels_of(model, torch.arange(7000), "random", 3)
    counts = labels.bincount(minlength=7)
    assert len(counts) == 7 and 900 < counts.min() and counts.max() < 1100  # 1000 +- 29
    some = torch.tensor([6999, 12])
    assert torch.equal(generated.labels_of(model, some, "random", 3), labels[some])
    assert not torch.equal(generated.labels_of(model, torch.arange(7000), "random", 4), labels)


def test_unguided_comes_first_and_a_release_guides_as_its_paper_did(system):
    make, generator = system
    model, context = generator.generator, make()
    assert generated.scales_of(model, None) == (1.0, 1.5)  # it does not guide by itself
    own = {"guidance": 4.0, "guidance_start": 2.0, "guidance_schedule": "linear", "top_k": 3}
    unguided = {"guidance": 1.0, "guidance_start": 1.0, "temperature": 0.9}
    changes = {"sampling": model.settings(own), "presets": {"unguided": unguided}}
    model.config = model.config.model_copy(update=changes)
    assert generated.scales_of(model, None) == (1.0, 4.0)
    assert generated.scales_of(model, (2.0,)) == (1.0, 2.0)
    first, second = (generated.settings(context, model, scale) for scale in (1.0, 4.0))
    assert not first.guided and first.temperature == 0.9 and first.top_k == 3
    assert second == model.sampling
    context.sampling = {"generator": {"guidance_start": 3.0, "top_k": 5}}  # changes of the user
    first = generated.settings(context, model, 1.0)
    assert not first.guided and first.temperature == 0.9 and first.top_k == 5


def test_a_generator_without_a_null_class_is_measured_unguided(system):
    make, generator = system
    model = generator.generator
    own = model.config.condition.model_copy(update={"null_class": False})
    model.config = model.config.model_copy(update={"condition": own})
    assert generated.scales_of(model, None) == generated.scales_of(model, (2.0,)) == (1.0,)
    jobs = gfid.GFID().jobs(System(make().run, (generator,)), EvalConfig(limit=9))
    (skip,) = (one for one in jobs if isinstance(one, Skip))
    assert skip.what == "gFID with guidance" and "knows no sample without a class" in skip.reason


def test_guidance_of_each_factor_has_a_name_and_survives_the_results(system):
    make, generator = system
    model, context = generator.generator, make()
    own = model.settings({"guidance": [2.0]})  # of the one factor of its tokens
    model.config = model.config.model_copy(update={"sampling": own})
    assert generated.scales_of(model, None) == (1.0, (2.0,))
    first, second = (generated.settings(context, model, scale) for scale in (1.0, (2.0,)))
    assert not first.guided and second == own
    sampled = row("gFID", "a", 3.0, sampling={"generator": {"guidance": [1.9, 2.0]}}, seed=0)
    again = Row.model_validate_json(sampled.model_dump_json(exclude={"display"}))
    assert again.guidance == (1.9, 2.0) and named(again).endswith(" guidance 1.9/2")
    assert named(row("gFID", "a", 3.0, **guided(1.5))).endswith(" guidance 1.5")


def test_shown_samples_are_those_of_the_statistics(system):
    make, generator = system
    with exact():
        context = make()
        shown = generated.samples_of(context, generator.generator, [0, 3, 6], 2, 1.0)
        tokens = generated.sample(
            context, generator.generator, torch.arange(14), generated.Pass(length=4)
        )
        decoded = (context.tokenizer.decode(tokens) * 255 + 0.5).byte()
    assert shown.shape == (3, 2, 3, 8, 8)
    assert torch.equal(shown[1, 1], decoded[10])  # class 3, second sample: number 3 + 7
