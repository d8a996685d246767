"""Contract of generators: every registered one keeps it, with whatever tokens it can model."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from tests.support.generators import (
    CONDITION,
    INDEX,
    KINDS,
    SPECS,
    held,
    lively,
    made,
    refuses,
    same,
    spec_for,
    tokens_of,
)
from vistok.config.registry import entries
from vistok.core.records import Condition
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.generators import load_generator
from vistok.tokens import Tokens, TokenSpec

VOCABULARIES = [(16,), (4, 3), (2,) * 6, (2**18,)]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


# -- registered generators -------------------------------------------------------------------------


@pytest.mark.parametrize("vocab", VOCABULARIES, ids=str)
def test_generators_learn_and_sample(kind, vocab, fails):
    spec = TokenSpec(blocks=((4,),), vocab=vocab, prefix="token")
    if refuses(kind, spec, fails):
        spec = spec_for(kind, vocab=vocab)
    vocab = spec.vocab
    model = made(kind, spec).train()
    tokens = tokens_of(spec)
    draws = model.draw(INDEX, Rng(0), Progress(0, 1))
    scalars = model(tokens, CONDITION, draws)
    assert all(value.ndim == 0 and value.isfinite() for value in scalars.values())
    if "nll" in model.metrics:  # likelihoods start from that of uniform codes
        nats = torch.tensor(vocab).double().log().sum().item()
        assert scalars["loss"].item() == pytest.approx(nats, abs=1e-4)
    # Heads that start from zero hand nothing on in the first step; afterwards all must learn.
    lively(model)(tokens, CONDITION, draws)["loss"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(tokens, CONDITION, draws)["loss"].isfinite()
    length = spec.eval_lengths[0]
    sampled = model.sample(CONDITION, index=INDEX, length=length, seed=1)
    assert model.training  # sampling leaves the mode as it was
    assert sampled.check().spec == spec
    assert spec.prefix == "none" or sampled.keep.tolist() == [length] * 3
    again = model.sample(CONDITION, index=INDEX, length=length, seed=1)
    assert torch.equal(held(sampled), held(again))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_whole_generators_in_other_precisions(kind, dtype):
    """Quantizers and bits among them compute in fp32, in steps of the others' precision."""
    spec = spec_for(kind)
    model = lively(made(kind, spec)).to(dtype)
    assert model.sample(CONDITION, index=INDEX).check().spec == spec
    draws = model.draw(INDEX, Rng(0), Progress(0, 1))
    assert model.train()(tokens_of(spec), CONDITION, draws)["loss"].isfinite()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert len(model.float().sample(CONDITION, index=INDEX)) == 3


@pytest.mark.parametrize("shape", SPECS)
def test_samples_keep_to_the_spec(kind, shape, fails):
    spec = TokenSpec(vocab=(16,), **SPECS[shape])
    if refuses(kind, spec, fails):
        return
    model = lively(made(kind, spec)).eval()
    whole = model.sample(CONDITION, index=INDEX, seed=3).check()
    assert whole.spec == spec and whole.keep is None and len(whole) == 3
    parts = [
        model.sample(CONDITION.select(slice(i, i + 1)), index=INDEX[i : i + 1], seed=3).indices
        for i in range(3)
    ]
    assert torch.equal(torch.cat(parts), whole.indices)  # keyed by sample, whatever the batch
    assert not torch.equal(model.sample(CONDITION, index=INDEX, seed=4).indices, whole.indices)
    for length in spec.eval_lengths[:-1]:
        part = model.sample(CONDITION, index=INDEX, seed=3, length=length).check()
        assert torch.equal(part.indices, whole.prefix(length).indices)
    assert model.can_stop <= (spec.prefix in ("token", "block"))


@pytest.mark.parametrize("shape", SPECS)
def test_metrics_are_sums_over_counts(kind, shape, fails):
    spec = TokenSpec(vocab=(16,), **SPECS[shape])
    if refuses(kind, spec, fails):
        return
    model = lively(made(kind, spec)).eval()
    tokens = tokens_of(spec)
    if spec.prefix != "none":
        tokens = tokens.prefix(spec.eval_lengths[0])
    whole = model.evaluate(tokens, CONDITION)
    assert tuple(whole) == model.metrics
    assert model.judged_by[0] in whole and model.judged_by[1] in (-1, 1)
    rows = [slice(0, 1), slice(1, 3)]
    parts = [model.evaluate(tokens.select(r), CONDITION.select(r)) for r in rows]
    for name, (total, count) in whole.items():
        assert count == sum(part[name][1] for part in parts)
        added = sum(float(part[name][0]) for part in parts)
        assert float(total) == pytest.approx(added, rel=1e-4)


def test_draws_are_keyed_by_the_sample(kind):
    model = made(kind, spec_for(kind))
    draw = lambda index, step: model.draw(index, Rng(0, "generator", step), Progress(step, 9))
    whole, some = draw(torch.arange(64), 3), draw(torch.tensor([5, 40]), 3)
    assert torch.equal(whole.null[[5, 40]], some.null)
    assert not torch.equal(draw(torch.arange(64), 4).null, whole.null)


def test_samples_without_a_class_have_the_null_class(kind):
    model = lively(made(kind, spec_for(kind))).eval()
    label = torch.tensor([0, -1, 1])
    mixed = held(model.sample(Condition(label=label, null=label < 0), index=INDEX, seed=2))
    free = held(model.sample(index=INDEX, seed=2))
    given = held(model.sample(Condition(label=label.clamp(min=0)), index=INDEX, seed=2))
    assert same(mixed[1], free[1]) and same(mixed[[0, 2]], given[[0, 2]])


def test_wrong_requests_are_one_line(kind, fails):
    model = made(kind, spec_for(kind))
    if model.spec.prefix == "none":
        with fails(ValueError, "length=2.*whole sequences"):
            model.sample(index=INDEX, length=2)
    with fails(ValueError, r"labels lie in 0..2; expected 0..1"):
        model.sample(Condition(label=torch.tensor([0, 2, 1])), index=INDEX)
    with fails(ValueError, "condition.label is of 3 samples, index of 2"):
        model.sample(CONDITION, index=INDEX[:2])
    with fails(ValueError, "no_such_key: unknown key"):
        model.sample(index=INDEX, sampling={"no_such_key": 1})
    with fails(ValueError, "sampling.preset=hot: expected"):
        model.sample(index=INDEX, sampling="hot")


def test_known_codes_are_taken_over_or_refused(kind, fails):
    spec = spec_for(kind, blocks=((2, 2),), vocab=(4, 3))
    if not entries("generator")[kind].part.takes_known:  # said in one line, as by Masked below
        pytest.skip("it takes no known codes")
    model = lively(made(kind, spec)).eval()
    known = tokens_of(spec)
    length, top = spec.length, max(spec.vocab)
    mask = torch.zeros(3, length, dtype=torch.bool)
    mask[0, [0, -1]] = mask[2] = True
    given = replace(CONDITION, known=known, known_mask=mask)
    for settings in ({}, {"guidance": 3.0}) if hasattr(model.sampling, "guidance") else ({},):
        free = model.sample(CONDITION, index=INDEX, seed=1, sampling=settings).indices
        some = model.sample(given, index=INDEX, seed=1, sampling=settings).check().indices
        assert torch.equal(some[mask], known.indices[mask])
        assert torch.equal(some[1], free[1]) and torch.equal(some[2], known.indices[2])
        alone = model.sample(given.select([0]), index=INDEX[:1], seed=1, sampling=settings)
        assert torch.equal(alone.indices[0], some[0])
    wrong = [
        ({"known_mask": None}, "condition.known without condition.known_mask"),
        ({"known": None}, "condition.known_mask without condition.known"),
        ({"known": known.select(slice(2))}, "condition.known is of 2 samples, index of 3"),
        (
            {"known": tokens_of(TokenSpec(blocks=spec.blocks, vocab=(12,)))},
            rf"vocab=\(12,\); expected .*vocab={re.escape(str(spec.vocab))}",
        ),
        ({"known": Tokens(spec, indices=known.indices + top)}, "condition.known: index .* outside"),
        (
            {"known_mask": mask[:, :3]},
            rf"known_mask is bool \[3, 3\]; expected bool \[3, {length}\]",
        ),
        ({"known_mask": mask.long()}, rf"known_mask is int64 \[3, {length}\]; expected bool"),
    ]
    for changes, words in wrong:
        with fails(ValueError, words):
            model.sample(replace(given, **changes), index=INDEX)


def test_saved_and_loaded_generators_are_equal(kind, tmp_path):
    model = lively(made(kind, spec_for(kind))).eval()
    model.classes, model.tokenizer = ("cat", "dog"), {"name": "t", "sha256": "ab"}
    model.save_pretrained(tmp_path)
    loaded = load_generator(tmp_path)
    assert type(loaded) is type(model) and loaded.config == model.config
    assert (loaded.spec, loaded.classes, loaded.tokenizer) == (
        model.spec,
        model.classes,
        model.tokenizer,
    )
    sampled = [held(one.sample(CONDITION, index=INDEX)) for one in (loaded, model)]
    assert torch.equal(*sampled)
    fresh = model.untrained()
    assert type(fresh) is type(model) and fresh.classes == model.classes
    assert not torch.equal(next(fresh.parameters()), next(model.parameters()))


def test_guidance_of_one_is_none(kind):
    model = lively(made(kind, spec_for(kind))).eval()
    if "guidance" not in type(model.sampling).model_fields:
        pytest.skip("its samples are not guided")
    # Rows for guidance run beside the others, as after the first steps of a schedule.
    runs = {"guidance": 1.0}, {"guidance": 5.0, "guidance_interval": [0.999, 0.9995]}
    none, beside = (model.sample(CONDITION, index=INDEX, sampling=one) for one in runs)
    guided = model.sample(CONDITION, index=INDEX, sampling={"guidance": 5.0})
    assert same(none, beside) and not same(none, guided)
