"""Contract of generators: every registered one keeps it, and a made-up one of another family.

The made-up generator predicts masked positions, has no likelihood and cannot stop at a prefix.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import vistok.generators  # noqa: F401  (registers the generators)
from vistok.config import Config, ConfigError, registry, validate
from vistok.config.registry import build, entries, register
from vistok.core.draws import Draws, PartDraws
from vistok.core.records import Condition
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.data import DataError, TokenCache, TokenCacheWriter
from vistok.generators import Generator, GeneratorConfig, load_generator
from vistok.generators.conditioning import ConditionTokens
from vistok.generators.orders import random_mask
from vistok.tokens import Tokens, TokenSpec
from vistok.train.config import TrainConfig
from vistok.train.loop import train
from vistok.train.tasks.generator import GeneratorTask, GeneratorTaskConfig

KINDS = list(entries("generator"))
VOCABULARIES = [(16,), (4, 3), (2,) * 6, (2**18,)]
SPECS = {
    "none": {"blocks": ((4,),)},
    "grid": {"blocks": ((2, 2),)},
    "token": {"blocks": ((4,),), "prefix": "token"},
    "block": {"blocks": ((1,), (3,)), "prefix": "block"},
    "per_block": {"blocks": ((2,), (2,)), "prefix": "per_block"},
}
CONDITION = Condition(label=torch.tensor([0, 1, 1]))
INDEX = torch.arange(3)


class MaskedSampling(Config):
    greedy: bool = False


class MaskedConfig(GeneratorConfig):
    kind: Literal["test_masked"] = "test_masked"
    sampling: MaskedSampling = MaskedSampling()


class Masked(Generator):
    """A position's code from the condition and the codes of all positions that are not masked."""

    metrics, judged_by = ("accuracy",), ("accuracy", 1)

    def __init__(self, config: MaskedConfig, spec: TokenSpec, codes: nn.Module | None = None):
        super().__init__(config, spec)
        self.condition = ConditionTokens(config.condition, 8)
        self.embed = nn.Embedding(spec.vocab[0] + 1, 8)
        self.out = nn.Linear(8, spec.vocab[0])

    def draw(self, index, rng, progress):
        part = PartDraws(mask=random_mask(index, rng, self.spec.length))
        return Draws(parts={"generator": part}).join(super().draw(index, rng, progress))

    def logits(self, indices, mask, condition, null=None):
        seen = self.embed(indices.long().masked_fill(mask, self.spec.vocab[0]))
        return self.out(seen.mean(1, keepdim=True) + self.condition(condition, len(mask), null))

    def forward(self, tokens, condition, draws=None):
        mask, codes = draws.part("generator").mask, tokens.indices[..., 0]
        logits = self.logits(codes, mask, condition, draws.null).expand(-1, mask.shape[1], -1)
        loss = F.cross_entropy(logits[mask], codes[mask].long())
        return {"loss": loss, "masked": mask.float().mean()}

    def evaluate(self, tokens, condition):
        codes = tokens.indices[..., 0]
        guess = self.logits(codes, torch.ones_like(codes) > 0, condition).argmax(-1)
        return {"accuracy": ((guess == codes).sum(), codes.numel())}

    def generate(self, condition, index, seed, positions, settings):
        codes = torch.zeros(len(index), positions, dtype=torch.long)
        logits = self.logits(codes, torch.ones_like(codes) > 0, condition)
        u = Rng(seed, "sampling").uniform(index, (positions, self.spec.vocab[0]))
        noise = torch.zeros(()) if settings.greedy else -(-u.clamp(1e-20).log()).log()
        return Tokens.of(self.spec, (logits + noise).argmax(-1).expand(-1, positions)[..., None])


@pytest.fixture
def masked(monkeypatch):
    """The made-up generator, registered while a test runs."""
    known = {family: dict(kinds) for family, kinds in registry._ENTRIES.items()}
    monkeypatch.setattr(registry, "_ENTRIES", known)
    register("generator", MaskedConfig)(Masked)
    rebuilt = (GeneratorTaskConfig, TrainConfig)  # outermost last
    for config in rebuilt:
        config.model_rebuild(force=True)
    yield MaskedConfig
    monkeypatch.undo()
    for config in rebuilt:
        config.model_rebuild(force=True)


def small(kind: str, vocab: tuple[int, ...] = (16,), **changes) -> Config:
    tree = entries("generator")[kind].config.tiny().model_dump() | changes
    if max(vocab) > 2**16 and "regroup" in tree:
        tree["regroup"] = (64, 4096)
    return validate(entries("generator")[kind].config, tree)


def tokens_of(spec: TokenSpec, count: int = 3) -> Tokens:
    generator = torch.Generator().manual_seed(0)
    size = (count, spec.length)
    codes = [torch.randint(v, size, generator=generator) for v in spec.vocab]
    return Tokens.of(spec, torch.stack(codes, -1))


def lively(model: nn.Module) -> nn.Module:
    """All weights moved, so that everything has an influence."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def made(kind: str, spec: TokenSpec, **changes) -> Generator:
    torch.manual_seed(0)
    return build(small(kind, spec.vocab, condition={"classes": 2}, **changes), spec)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


# -- registered generators -------------------------------------------------------------------------


@pytest.mark.parametrize("vocab", VOCABULARIES, ids=str)
def test_generators_learn_and_sample(kind, vocab, fails):
    spec = TokenSpec(blocks=((4,),), vocab=vocab, prefix="token")
    if kind == "bit_diffusion" and 3 in vocab:
        with fails(ValueError, r"3 of vocab=\(4, 3\) is no power of two; .*use autoreg"):
            made(kind, spec)
        return
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
    sampled = model.sample(CONDITION, index=INDEX, length=2, seed=1)
    assert model.training  # sampling leaves the mode as it was
    assert sampled.check().spec == spec and sampled.keep.tolist() == [2, 2, 2]
    again = model.sample(CONDITION, index=INDEX, length=2, seed=1)
    assert torch.equal(sampled.indices, again.indices)


@pytest.mark.parametrize("shape", SPECS)
def test_samples_keep_to_the_spec(kind, shape):
    spec = TokenSpec(vocab=(16,), **SPECS[shape])
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
def test_metrics_are_sums_over_counts(kind, shape):
    spec = TokenSpec(vocab=(16,), **SPECS[shape])
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
    model = made(kind, TokenSpec(blocks=((4,),), vocab=(16,)))
    draw = lambda index, step: model.draw(index, Rng(0, "generator", step), Progress(step, 9))
    whole, some = draw(torch.arange(64), 3), draw(torch.tensor([5, 40]), 3)
    assert torch.equal(whole.null[[5, 40]], some.null)
    assert not torch.equal(draw(torch.arange(64), 4).null, whole.null)


def test_samples_without_a_class_have_the_null_class(kind):
    spec = TokenSpec(blocks=((4,),), vocab=(16,))
    model = lively(made(kind, spec)).eval()
    label = torch.tensor([0, -1, 1])
    mixed = model.sample(Condition(label=label, null=label < 0), index=INDEX, seed=2).indices
    free = model.sample(index=INDEX, seed=2).indices
    given = model.sample(Condition(label=label.clamp(min=0)), index=INDEX, seed=2).indices
    assert torch.equal(mixed[1], free[1]) and torch.equal(mixed[[0, 2]], given[[0, 2]])


def test_wrong_requests_are_one_line(kind, fails):
    model = made(kind, TokenSpec(blocks=((4,),), vocab=(16,)))
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
    spec = TokenSpec(blocks=((2, 2),), vocab=(4, 3))
    if not entries("generator")[kind].part.takes_known:  # said in one line, as by Masked below
        pytest.skip("it takes no known codes")
    model = lively(made(kind, spec)).eval()
    known = tokens_of(spec)
    mask = torch.tensor([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]]) > 0
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
        ({"known": tokens_of(spec.regroup((12,)))}, r"vocab=\(12,\); expected .*vocab=\(4, 3\)"),
        ({"known": Tokens(spec, indices=known.indices + 3)}, "condition.known: index .* outside"),
        ({"known_mask": mask[:, :3]}, r"known_mask is bool \[3, 3\]; expected bool \[3, 4\]"),
        ({"known_mask": mask.long()}, r"known_mask is int64 \[3, 4\]; expected bool"),
    ]
    for changes, words in wrong:
        with fails(ValueError, words):
            model.sample(replace(given, **changes), index=INDEX)


def test_saved_and_loaded_generators_are_equal(kind, tmp_path):
    model = lively(made(kind, TokenSpec(blocks=((4,),), vocab=(16,)))).eval()
    model.classes, model.tokenizer = ("cat", "dog"), {"name": "t", "sha256": "ab"}
    model.save_pretrained(tmp_path)
    loaded = load_generator(tmp_path)
    assert type(loaded) is type(model) and loaded.config == model.config
    assert (loaded.spec, loaded.classes, loaded.tokenizer) == (
        model.spec,
        model.classes,
        model.tokenizer,
    )
    sampled = [one.sample(CONDITION, index=INDEX).indices for one in (loaded, model)]
    assert torch.equal(*sampled)
    fresh = model.untrained()
    assert type(fresh) is type(model) and fresh.classes == model.classes
    assert not torch.equal(next(fresh.parameters()), next(model.parameters()))


# -- through the generator task --------------------------------------------------------------------


def cached(folder: Path, spec: TokenSpec, label: torch.Tensor | None, count: int = 24) -> Path:
    rows = tokens_of(spec, count)
    options = {"source": {}, "tokenizer": "t", "sha256": "0", "classes": ("cat", "dog")}
    with TokenCacheWriter(folder, spec, count, **options) as writer:
        writer.write(rows, label)
    return folder


def run_tree(folder: Path, generator: dict, path: Path) -> dict:
    return {
        "name": "generator",
        "out": str(folder),
        "task": {"kind": "generator", "generator": generator},
        "data": {"kind": "tokens", "path": str(path), "val_share": 0.25},
        "steps": 2,
        "batch_size": 8,
        "validate_every": 1,
        "log_every": 1,
        "grid_every": 0,
        "ema": None,
        "trackers": [],
    }


def trained(folder: Path, generator: dict, path: Path) -> list[dict]:
    """Train, and give the lines of the log."""
    train(validate(TrainConfig, run_tree(folder, generator, path)))
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("shape", ["token", "per_block"])
def test_a_masked_generator_without_likelihood(masked, tmp_path, fails, shape):
    spec = TokenSpec(vocab=(6,), **SPECS[shape])
    path = cached(tmp_path / "tokens", spec, torch.arange(24) % 2)
    generator = {"kind": "test_masked", "sampling": {"greedy": True}}
    lines = trained(tmp_path / "run", generator, path)
    first = next(line for line in lines if line["split"] == "train")
    assert 0 < first["masked"] <= 1 and first["loss"] > 0
    assert all(0 <= line["accuracy"] <= 1 for line in lines if line["split"] == "val")
    model = load_generator(tmp_path / "run" / "model")
    assert type(model) is Masked and model.classes == ("cat", "dog")
    assert model.sampling == MaskedSampling(greedy=True) and not model.can_stop
    whole = model.sample(CONDITION, index=INDEX).check()
    assert torch.equal(model.sample(CONDITION, index=INDEX, seed=5).indices, whole.indices)
    other = [
        model.sample(CONDITION, index=INDEX, seed=s, sampling={"greedy": False}) for s in range(4)
    ]
    assert any(not torch.equal(one.indices, whole.indices) for one in other)
    part = model.sample(CONDITION, index=INDEX, length=1).check()
    assert torch.equal(part.indices, whole.prefix(1).indices)
    with fails(ValueError, "temperature: unknown key.*greedy"):
        model.sample(index=INDEX, sampling={"temperature": 1.0})
    with fails(ValueError, "cannot continue condition.known; leave it out"):
        model.sample(Condition(known=whole, known_mask=whole.kept()), index=INDEX)


def test_unlabeled_samples_train_among_labeled_ones(kind, tmp_path):
    spec = TokenSpec(blocks=((4,),), vocab=(16,))
    label = torch.arange(24) % 3 - 1  # a third of the samples has no class
    path = cached(tmp_path / "tokens", spec, label)
    lines = trained(tmp_path / "run", small(kind).model_dump(mode="json"), path)
    assert all(math.isfinite(line["loss"]) for line in lines if line["split"] == "train")
    model = load_generator(tmp_path / "run" / "model")
    assert model.num_classes == 2 and model.classes == ("cat", "dog")
    found = [line for line in lines if line["split"] == "val"]
    assert found and all(set(model.metrics) <= set(line) for line in found)


def test_labels_of_a_cache_lie_in_its_classes(tmp_path, fails):
    spec = TokenSpec(blocks=((4,),), vocab=(16,))
    with fails(DataError, "label 2, but only 2 classes; expected 0..1, or -1 for none"):
        cached(tmp_path / "tokens", spec, torch.arange(24) % 3)


def validate_tokens(path: Path) -> Config:
    return validate(entries("data")["tokens"].config, {"path": str(path)})


def test_codes_come_from_the_tokenizer_of_the_cache(tmp_path, make_tokenizer, fails):
    from vistok.storage.weights import sha256

    tokenizer = make_tokenizer("vq")
    folder, spec = tmp_path / "tokenizer", tokenizer.spec()
    tokenizer.save_pretrained(folder)
    options = {"source": {}, "tokenizer": str(folder), "classes": ()}
    hashes = {"tokens": sha256(folder / "model.safetensors"), "stale": "0" * 64}
    for name, found in hashes.items():
        with TokenCacheWriter(tmp_path / name, spec, 8, sha256=found, **options) as writer:
            writer.write(tokens_of(spec, 8))
    config = small("autoregressive", spec.vocab, embed="codes").model_dump()
    config = validate(GeneratorTaskConfig, {"generator": config})
    task = GeneratorTask(config, build(validate_tokens(tmp_path / "tokens")).open("train"))
    codes = tokenizer.quantizer.lookup(torch.arange(spec.codebook_size)[None, :, None])[0]
    assert torch.equal(task.generator.embed.table, codes)
    assert TokenCache(tmp_path / "stale").spec == spec
    with fails(ConfigError, "made by other weights than those of", "embed=learned"):
        GeneratorTask(config, build(validate_tokens(tmp_path / "stale")).open("train"))
