"""LARP's generators come in and go out: files, the trainer's checkpoints, options, recipes."""

from __future__ import annotations

import json

import pytest
import torch

from vistok import pretrained
from vistok.config import ConfigError, read_yaml, validate
from vistok.config.registry import build
from vistok.generators import Generator
from vistok.pretrained import FAMILIES, from_official, to_official
from vistok.storage.weights import WeightsError
from vistok.tokens import Tokens, TokenSpec
from vistok.train.config import TrainConfig

LARP = FAMILIES["larp_ar"]
CLASSES = {"dim": 16, "n_layer": 2, "n_head": 2, "multiple_of": 16, "vocab_size": 12}
CLASSES |= {"num_classes": 3, "max_seq_len": 6}
FRAMES = {**CLASSES, "frame_prediction": True, "cls_token_num": 7, "num_cond_frames": 2}
# Parameters that the official code builds, in millions.
BUILT = {"class": 631.98, "frame_prediction": 633.16}


def official(config: dict) -> dict[str, torch.Tensor]:
    """Random weights in the official layout."""
    torch.manual_seed(0)
    model = Generator.from_description(LARP.config(config), "tiny")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return to_official(model, "larp_ar")[0]


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("config", [CLASSES, FRAMES], ids=["class", "frames"])
def test_both_ways_bit_for_bit(tmp_path, config):
    state = official(config)
    rows = {"tok_embeddings.weight": 12 + (config is FRAMES), "output.weight": 12}
    assert {key: len(state[key]) for key in rows} == rows
    assert state["abs_pe"].shape[1] == config["max_seq_len"] * (1 + (config is FRAMES))
    model = from_official("larp_ar", state, config)
    model.save_pretrained(tmp_path / "ours")
    for one in (model, Generator.from_pretrained(tmp_path / "ours")):
        back, written = to_official(one)
        assert equal(back, state) and written == config
    folder = tmp_path / "official"  # as the hub has it
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(state, folder / "pytorch_model.bin")
    opened = pretrained.open(folder, expect="generator")
    assert equal(opened.state_dict(), model.state_dict())
    assert opened.config.condition.first_frames == config.get("num_cond_frames")


def test_checkpoints_of_the_trainer(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = official(FRAMES)
    args = {"num_classes": 101, "frame_prediction": True}
    torch.save({"model": {"name": "llama-abs-S", "args": args, "sd": state}, "epoch": 3}, "a.pth")
    (tmp_path / "config.json").write_text(json.dumps(FRAMES))
    compiled = {f"_orig_mod.{key}": tensor for key, tensor in state.items()}
    torch.save(compiled, "compiled.pt")
    for name in ("a.pth", "compiled.pt"):
        assert equal(to_official(pretrained.open(name))[0] | state, state)
    trainer = {"name": "llama-abs-LP", "args": {**args, "max_seq_len": 8, "cls_token_num": 9}}
    found = LARP.config(trainer)
    assert found["transformer"]["depth"] == 30 and found["spec"]["blocks"] == [[8]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cls_token_num": 2}, "cls_token_num=2 with model_type=class_cond; expected 1"),
        ({"model_type": "i2v"}, "model_type=i2v; expected class_cond"),
        ({"frame_prediction": True}, "cls_token_num=1 with frame_prediction=true.* expected 7"),
        ({**FRAMES, "cfg_scale": 2.0}, "cfg_scale=2.0 with frame_prediction=true; expected 1"),
        ({"name": "llama-abs-Z", "args": {}}, "name=llama-abs-Z; expected one of llama-abs-B"),
    ],
)
def test_options_that_the_original_cannot_run(fails, change, words):
    with fails(ConfigError, words):
        LARP.config({**CLASSES, **change})


def test_broken_weights_are_one_line(fails):
    state = official(FRAMES)
    for key, tensor, words in (
        ("output.weight", None, "missing output.weight"),
        ("norm.weight", torch.ones(3), r"norm.weight has shape \(3,\); expected \(16,\)"),
        ("tok_embeddings.weight", torch.ones(12, 16), "tok_embeddings.weight"),
        ("abs_pe", torch.full((1, 12, 16), torch.nan), "abs_pe has values that are not finite"),
    ):
        broken = {k: v for k, v in state.items() if k != key}
        broken |= {} if tensor is None else {key: tensor}
        with fails(WeightsError, words):
            from_official("larp_ar", broken, FRAMES, "file.pt")
    sizes = {key: value for key, value in FRAMES.items() if key != "n_head"}
    with fails(ConfigError, "the weights do not tell n_head"):
        from_official("larp_ar", state, sizes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"position_dropout": True}, "position_dropout=True"),
        ({"positions": "rope"}, "positions=rope"),
        ({"transformer": {"qk_norm": True}}, "transformer.qk_norm=True"),
        ({"condition": {"pooled": 4}}, "condition.pooled=4"),
    ],
)
def test_what_the_official_layout_cannot_say_is_refused(fails, change, words):
    tree = LARP.config(CLASSES)
    for key, value in change.items():
        tree[key] = {**tree.get(key, {}), **value} if isinstance(value, dict) else value
    with fails(ConfigError, words, "no place in the official layout"):
        to_official(Generator.from_description(tree, "here"), "larp_ar")


@pytest.mark.parametrize("release", LARP.releases, ids=lambda one: one.name)
def test_recipes_are_those_of_the_releases(release):
    generator = validate(TrainConfig, read_yaml(release.recipe[0])).task.generator
    spec = TokenSpec(blocks=((1024,),), vocab=(8192,), dim=16)
    with torch.device("meta"):
        model = build(generator, spec)
    last = model.config.transformer.width  # the row of positions that the official table lacks
    count = (sum(p.numel() for p in model.parameters()) - last) / 1e6
    assert count == pytest.approx(BUILT[release.recipe[0].split("/")[-1]], abs=0.01)
    assert LARP.config(LARP.official(model)) == LARP.config(release.config)


def test_known_frames_are_checked(fails):
    model = from_official("larp_ar", official(FRAMES), FRAMES)
    index, spec = torch.arange(2), model.spec
    with fails(ValueError, "this generator continues clips: give condition.prefix"):
        model.sample(index=index)
    from vistok.core.records import Condition

    codes = torch.randint(0, 12, (2, 6, 1), generator=torch.Generator().manual_seed(0))
    other = TokenSpec(blocks=((3, 2),), vocab=(12,), dim=spec.dim)
    for prefix, words in (
        (Tokens.of(other, codes), r"condition.prefix is of blocks=\(\(3, 2\),\)"),
        (Tokens.of(spec, codes[:1]), "condition.prefix is of 1 samples, index of 2"),
    ):
        with fails(ValueError, words):
            model.sample(Condition(prefix=prefix), index=index)
    both = [
        model.sample(Condition(prefix=Tokens.of(spec, one)), index=index, sampling=how).indices
        for one in (codes, codes.flip(0))
        for how in ({}, {"guidance": 2.0}, {"cache": False}, {"jacobi": {"window": 3}})
    ]
    # The same sequences however they are sampled, and other ones after other frames.
    assert all(torch.equal(both[0], one) for one in both[1:3])
    assert not torch.equal(both[0], both[4])
