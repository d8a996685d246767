"""xAR comes in as it was released and goes out again: options, files, counts, one-line errors."""

from __future__ import annotations

import pytest
import torch

from vistok import pretrained
from vistok.config import ConfigError, UserError, read_yaml, validate
from vistok.config.registry import build
from vistok.core.records import Condition
from vistok.generators import Generator
from vistok.pretrained import FAMILIES, from_official, to_official
from vistok.storage.weights import WeightsError
from vistok.tokens import TokenSpec
from vistok.train.config import TrainConfig

XAR = FAMILIES["xar"]
CARD = {"xar-b": 172.6, "xar-l": 608.4, "xar-h": 1186.0}  # millions, as the official code counts
TINY = {"encoder_embed_dim": 16, "encoder_depth": 1, "encoder_num_heads": 2,
        "decoder_embed_dim": 16, "decoder_depth": 2, "decoder_num_heads": 4,
        "img_size": 64, "vae_embed_dim": 3}  # fmt: skip


def official_xar(**changes) -> tuple[dict, dict]:
    """A state dict of the official layout with random numbers, and its config."""
    config = {**TINY, **changes}
    tree = {key: value for key, value in XAR.config(config).items() if key != "tokenizer"}
    model = Generator.from_description(tree, "tiny")
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data.copy_(torch.randn_like(parameter) * 0.2)
    state, _ = to_official(model, "xar")
    table = state["class_emb.weight"]
    table.copy_(torch.randn_like(table))  # rows of no class too
    return state, config


def samples(model: Generator) -> torch.Tensor:
    condition = Condition(label=torch.tensor([0, 1, -1]))
    settings = {"steps": 3, "guidance": 2.0}
    return model.sample(condition, index=torch.arange(3), sampling=settings).check().values


@pytest.mark.parametrize(
    "changes",
    [{}, {"mlp_ratio": 2.7, "label_drop_prob": 0.25}, {"attn_dropout": 0.1, "proj_dropout": 0.2},
     {"class_num": 10}, {"clusters": 16}, {"num_steps": 7, "cfg": 3.5}],
    ids=str,
)  # fmt: skip
def test_options_go_both_ways(changes):
    state, config = official_xar(**changes)
    model = from_official("xar", state, config)
    back, written = to_official(model)
    assert written == config and back.keys() == state.keys()
    assert all(torch.equal(back[key], tensor) for key, tensor in state.items())
    said = XAR.official(model)
    assert {key: said[key] for key in changes} == changes
    twin = from_official("xar", state, said)
    assert twin.config == model.config and torch.equal(samples(twin), samples(model))
    bare = from_official("xar", state, {})  # tensors tell all sizes
    for name in ("second", "cells"):
        assert getattr(bare.config, name) == getattr(model.config, name)
    assert bare.config.transformer.hidden == model.config.transformer.hidden
    if "class_num" not in changes:
        assert torch.equal(samples(bare), samples(model))


def test_files_and_names(tmp_path, monkeypatch, fails):
    monkeypatch.chdir(tmp_path)
    state, _ = official_xar()
    torch.save(state, "weights.pth")
    model = pretrained.open("weights.pth", expect="generator")
    assert model.config.transformer.width == 16 and model.spec.blocks == ((4, 4),)
    model.save_pretrained("ours")
    again = pretrained.open("ours", expect="generator")
    assert torch.equal(samples(again), samples(model))
    back, _ = to_official(again)
    assert all(torch.equal(back[key], tensor) for key, tensor in state.items())
    with fails(ConfigError, "xar-b", "by hand"):  # no network in tests
        pretrained.load("xar-b", local_files_only=True)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda s: s.pop("pred.bias"), "missing pred.bias"),
        (lambda s: s.update(other=torch.ones(2)), "unexpected other"),
        (lambda s: s.update({"pred.weight": s["pred.weight"][:, :8]}), "pred.weight has shape"),
        (lambda s: s["pred.bias"].fill_(torch.nan), "pred.bias has values that are not finite"),
        (lambda s: s.update({"class_emb.weight": torch.zeros(7, 16)}), "class_emb.weight.* 1001"),
        (lambda s: s["mask"][..., -1, 0].fill_(-torch.inf), "mask has shape"),
    ],
)
def test_wrong_weights_are_one_line(damage, words, fails):
    state, config = official_xar()
    damage(state)
    with fails(WeightsError, words):
        from_official("xar", state, config, "somewhere")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"decoder_embed_dim": 32}, "encoder_embed_dim=16 with decoder_embed_dim=32"),
        ({"clusters": 5}, "clusters=5 of a grid of 4 x 4; expected the square of a divisor of 4"),
        ({"class_num": 1001}, "class_num=1001; expected 1..1000"),
    ],
)
def test_what_the_official_code_cannot_run_is_named(changes, words, fails):
    with fails(ConfigError, words):
        XAR.config({**TINY, **changes})


@pytest.mark.parametrize(
    "key", ["encoder_depth", "clusters", "class_num", "mlp_ratio", "num_steps"]
)
def test_values_of_wrong_types_are_one_line(key):
    state, config = official_xar()
    for value in (None, "many", [], -1):
        with pytest.raises(UserError) as told:
            from_official("xar", state, config | {key: value}, "somewhere")
        assert "\n" not in str(told.value)


def test_what_the_layout_cannot_hold_is_named(fails):
    model = from_official("xar", *official_xar())
    changes = {
        "rope=False": {"rope": False},
        "transformer.mlp=gelu": {"transformer": {"mlp": "gelu"}},
        "time.truncate=False": {"time": {"truncate": False}},
        "cells=": {"cells": {"size": 2, "order": "columns"}},
        "a second stage": {"second": None},
    }
    for words, change in changes.items():
        tree = model.describe()
        for name, value in change.items():
            tree[name] = tree[name] | value if isinstance(value, dict) else value
        with fails(ConfigError, words):
            to_official(Generator.from_description(tree, "tiny"), "xar")


@pytest.mark.parametrize("name", CARD)
def test_recipes_train_what_was_released(name):
    _, release = pretrained.releases()[name]
    config = validate(TrainConfig, read_yaml(release.recipe[0]))
    width, depth, heads = {"b": (768, 8, 12), "l": (1024, 16, 16), "h": (1280, 20, 16)}[name[-1]]
    sizes = {}
    for stage in ("encoder", "decoder"):
        sizes |= {f"{stage}_embed_dim": width, f"{stage}_depth": depth}
        sizes[f"{stage}_num_heads"] = heads
    described = XAR.config({**release.config, **sizes})
    with torch.device("meta"):
        model = build(config.task.generator, validate(TokenSpec, described["spec"]))
        released = Generator.from_description(described, name)
    assert model.config == released.config and released.tokenizer["name"] == "mar-kl16"
    assert release.research_only and "research" in release.license
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(CARD[name], rel=1e-3)
