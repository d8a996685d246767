"""Generators through the generator task, and one of another family: it predicts masked positions,
has no likelihood and cannot stop at a prefix.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import vistok.train.tasks.generator as generator_task
from tests.support.generators import (
    CONDITION,
    INDEX,
    KINDS,
    SPECS,
    codes_of,
    small,
    spec_for,
    tokens_of,
)
from vistok.config import Config, ConfigError, registry, validate
from vistok.config.registry import build, entries, register
from vistok.core.draws import Draws, PartDraws
from vistok.core.records import Condition
from vistok.core.rng import Rng
from vistok.data import DataError, TokenCache, TokenCacheWriter
from vistok.generators import Generator, GeneratorConfig, load_generator
from vistok.generators.conditioning import ConditionTokens
from vistok.generators.orders import random_mask
from vistok.tokens import Tokens, TokenSpec
from vistok.train.config import TrainConfig
from vistok.train.loop import train
from vistok.train.tasks.generator import GeneratorTask, GeneratorTaskConfig


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


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


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


def test_unlabeled_samples_train_among_labeled_ones(kind, tmp_path, monkeypatch):
    spec = spec_for(kind)
    # There is no tokenizer "t"; a kind that wants its code vectors gets others of this spec.
    monkeypatch.setattr(generator_task, "_codes", lambda made_by, spec: codes_of(spec))
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
