"""Plans of work on tokens: of generators on a cache, and of caches that are to be written."""

from __future__ import annotations

import copy
import json

import torch

from tests.support.training import TINY
from vistok.config import load_plugins, validate
from vistok.config.registry import build
from vistok.core.records import Condition
from vistok.data.token_cache import ArraySpec
from vistok.data.token_cache_writer import TokenCacheWriter
from vistok.tokenizer import Tokenizer, TokenizerConfig
from vistok.tokens import Tokens, TokenSpec
from vistok.train.config import TrainConfig
from vistok.train.cost.plan import make_plan


def config_of(**changes) -> TrainConfig:
    return validate(TrainConfig, {**copy.deepcopy(TINY), **changes})


def test_a_generator_that_reads_text_is_counted_from_a_cache_with_text(tmp_path):
    spec, shape = TokenSpec(blocks=((6,),), vocab=(16,), dim=4), (5, 3)
    arrays = {"text": shape, "text_mask": shape[:1], "pooled": (3,), "latents": (6, 4)}
    condition = Condition(
        text=torch.zeros(4, *shape), text_mask=torch.ones(4, 5).bool(), pooled=torch.zeros(4, 3)
    )
    kept = {name: getattr(condition, name) for name in ("text", "text_mask", "pooled")}
    kept["latents"] = torch.zeros(4, 6, 4)
    with TokenCacheWriter(
        tmp_path / "tokens",
        spec,
        4,
        source={},
        tokenizer="t",
        sha256="0",
        arrays={name: ArraySpec.of(values, "float32") for name, values in kept.items()},
    ) as writer:
        tokens = Tokens.of(spec, torch.zeros(4, 6, 1, dtype=torch.long))
        writer.write(tokens, torch.full((4,), -1), latents=kept["latents"], condition=condition)
    reads = {"text": {"dim": 3, "length": 5}, "pooled": 3}
    width = {"width": 16, "depth": 1, "heads": 2}
    generator = {"kind": "autoregressive", "transformer": width, "condition": reads}
    config = config_of(
        task={"kind": "generator", "generator": generator},
        data={"kind": "tokens", "path": str(tmp_path / "tokens"), "val_share": 0.3},
        batch_size=1,
    )
    data = build(config.data).open("train")
    batch = build(config.task, data).example(2)
    found = {name: getattr(batch.condition, name) for name in ("text", "text_mask", "pooled")}
    found["latents"] = batch.latents
    assert {name: tuple(one.shape[1:]) for name, one in found.items()} == arrays
    assert found["text_mask"].dtype == torch.bool and found["text_mask"].all()
    assert make_plan(config).stages[0].flops > 0


def cache_plan(name: object):
    task = {"kind": "cache", "tokenizer": str(name)}
    return make_plan(config_of(task=task))


def test_a_cache_is_planned_for_a_released_tokenizer():
    task = {"kind": "cache", "tokenizer": "titok-l32"}
    plan = make_plan(config_of(task=task, data={"kind": "photos", "size": 256}))
    assert plan.spec.length == 32 and plan.flops > 1e9 and not plan.notes


def test_a_cache_is_planned_for_a_tokenizer_that_borrows_a_network(tmp_path):
    load_plugins(["tests.support.fake_parts"])
    tree = copy.deepcopy(TINY["task"]["tokenizer"])
    tree |= {"input_space": {"kind": "borrowed"}}
    Tokenizer(validate(TokenizerConfig, tree)).save_pretrained(tmp_path / "t")
    assert "frozen" in json.loads((tmp_path / "t/config.json").read_text())
    plan = cache_plan(tmp_path / "t")
    assert plan.spec.length == 4 and not plan.notes


def test_a_cache_may_be_planned_before_its_tokenizer_is_trained(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    for name in (tmp_path / "nothing", tmp_path):
        (note,) = cache_plan(name).notes
        assert note == f"task.tokenizer: {name} is not here: tokens and sizes unknown"
