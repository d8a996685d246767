"""NAR's generators come in and go out: files, trainer's arguments, options, errors, recipes."""

from __future__ import annotations

import argparse
import json

import pytest
import torch

from tests.support.nar import CAPTIONS, CLIPS, IMAGES, official_nar
from vistok import pretrained
from vistok.config import ConfigError, read_yaml, validate
from vistok.config.registry import build
from vistok.core.records import Condition
from vistok.generators import Generator
from vistok.pretrained import FAMILIES, from_official, to_official
from vistok.pretrained.find import find
from vistok.storage.weights import WeightsError
from vistok.tokens import TokenSpec
from vistok.train.config import TrainConfig

NAR = FAMILIES["nar"]
# Parameters that the official code builds, in millions.
BUILT = {"b": 130.55, "m": 295.45, "l": 372.54, "xl": 815.99, "xxl": 1464.45,
         "video_l": 368.74, "video_lp": 693.59}  # fmt: skip


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a
    )


@pytest.mark.parametrize("tree", [IMAGES, CAPTIONS, CLIPS], ids=["image", "caption", "clip"])
def test_both_ways_bit_for_bit(tmp_path, tree):
    state, config = official_nar(tree)
    state["freqs_cis"] = torch.zeros(2, 3)  # of older files
    state["norm.weight" if tree is not CLIPS else "norm_D.weight"] += 0.5
    state["layers.1.attention.wo.weight"] = state["layers.1.attention.wo.weight"].bfloat16()
    model = from_official("nar", state, config)
    model.save_pretrained(tmp_path)
    for one in (model, Generator.from_pretrained(tmp_path)):
        back, written = to_official(one)
        assert equal(back, state) and written == config
    sampled = model.sample(index=torch.arange(2), sampling="unguided").check()
    assert torch.equal(
        sampled.indices, model.sample(index=torch.arange(2), sampling="unguided").indices
    )


def test_checkpoints_of_the_trainers(tmp_path, monkeypatch):
    """A dict with `args`, one with the model alone, and the bare weights open as one model."""
    monkeypatch.chdir(tmp_path)
    state, config = official_nar(IMAGES)
    options = {"gpt_model": "GPT-B", "image_size": 48, "num_classes": 3, "drop_path_rate": 0.2}
    args = argparse.Namespace(dropout_p=0.1, lr=1e-4, vocab_size=12, **options)
    torch.save({"model": state, "optimizer": {}, "steps": 3, "args": args}, "args.pt")
    found = NAR.config(find("args.pt").config)
    assert found["spec"]["blocks"] == [[3, 3]] and found["transformer"]["width"] == 768
    assert found["transformer"]["dropout"] == 0 and found["transformer"]["drop_path"] == 0.2
    (tmp_path / "config.json").write_text(json.dumps({"block_size": 9, "n_head": 2}))
    torch.save({"model": state}, "last_version.pt")
    torch.save(state, "bare.pt")
    expected = from_official("nar", state, config)
    label = Condition(label=torch.tensor([0, 2]))
    for name in ("last_version.pt", "bare.pt"):
        model = pretrained.open(name, expect="generator")
        assert equal(model.state_dict(), expected.state_dict()) and model.depths == (3, 2)
        sampled = [m.sample(label, index=torch.arange(2)).indices for m in (model, expected)]
        assert torch.equal(*sampled)
    # The trainer of clips keeps the weights one level deeper.
    state, config = official_nar(CLIPS)
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save({"model": {"name": "llama-abs-S", "args": {}, "sd": state}, "epoch": 3}, "clip.pth")
    assert equal(to_official(pretrained.open("clip.pth"))[0], state)
    trainer = {"name": "llama-abs-LP", "args": {"num_classes": 101}}
    clip = NAR.config(trainer)
    assert clip["transformer"]["depth"] == 30 and clip["grid"] == [4, 16, 16]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cls_token_num": 2}, "cls_token_num=2 with model_type=c2i; expected 1"),
        ({"block_size": 8}, "block_size=8; expected a square"),
        ({"model_type": "i2v"}, "model_type=i2v; expected c2i or t2i"),
        ({"latent_shape": [2, 2, 2], "max_seq_len": 9}, "max_seq_len=9 with latent_shape"),
        ({"latent_shape": [1, 3, 3], "frame_prediction": True}, "frame_prediction=true; expected"),
        ({"gpt_model": "GPT-Z"}, "gpt_model=GPT-Z; expected one of GPT-B"),
    ],
)
def test_options_that_the_original_cannot_run(fails, change, words):
    with fails(ConfigError, words):
        NAR.config({**(CLIPS if "latent_shape" in change else IMAGES), **change})


def test_broken_weights_are_one_line(fails):
    state, config = official_nar(CLIPS)
    for key, tensor, words in (
        ("output_B.weight", None, "missing output_B.weight"),
        ("norm_D.weight", torch.ones(3), r"norm_D.weight has shape \(3,\); expected \(16,\)"),
        ("abs_pe", torch.full((1, 13, 16), torch.nan), "abs_pe has values that are not finite"),
        ("medusa_output.weight", torch.ones(12, 16), "unexpected medusa_output.weight"),
    ):
        broken = {k: v for k, v in state.items() if k != key}
        broken |= {} if tensor is None else {key: tensor}
        with fails(WeightsError, words):
            from_official("nar", broken, config, "file.pt")
    alone = {key: value for key, value in config.items() if key != "latent_shape"}
    with fails(ConfigError, "latent_shape: these weights are of 12 tokens"):
        from_official("nar", state, alone)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"transformer": {"qk_norm": True}}, "transformer.qk_norm=True"),
        ({"positions": "learned"}, "positions=learned"),
        ({"condition_positions": "before"}, "condition_positions=before"),
        ({"condition": {"pooled": 4}}, "condition.pooled=4"),
        ({"spec": {"blocks": [[2, 3]]}}, r"blocks=\(\(2, 3\),\).* expected kind=neighbouring"),
    ],
)
def test_what_the_official_layout_cannot_say_is_refused(fails, change, words):
    tree = NAR.config(IMAGES)
    for key, value in change.items():
        tree[key] = {**tree.get(key, {}), **value} if isinstance(value, dict) else value
    with fails(ConfigError, words, "no place in the official layout"):
        to_official(Generator.from_description(tree, "here"), "nar")


def test_the_end_of_guidance_is_told_in_tokens():
    """The official sampler guides planes with at most cfg_interval tokens in front of them."""
    planes = [0, 1, 3, 6, 8]  # tokens in front of each plane of a 3x3 grid
    for interval in (0, 1, 2, 3, 5, 6, 8):
        first, last = NAR.config({**IMAGES, "cfg_interval": interval})["sampling"][
            "guidance_interval"
        ]
        guided = 1 + sum(0 < count <= interval for count in planes)
        assert (first, last) == (0.0, guided / 5)
    model = from_official("nar", *official_nar({**IMAGES, "cfg_interval": 5}))
    model.origin = None
    again = NAR.config(to_official(model, "nar")[1])
    assert again["sampling"]["guidance_interval"] == model.sampling.guidance_interval


@pytest.mark.parametrize("name", BUILT)
def test_recipes_have_the_sizes_of_the_original(name):
    generator = validate(TrainConfig, read_yaml(f"generators/nar/{name}")).task.generator
    clips = name.startswith("video")
    spec = {"blocks": ((1024,),), "vocab": (8192,), "dim": 16}
    spec = spec if clips else {"blocks": ((16, 16),), "vocab": (16384,), "dim": 8}
    with torch.device("meta"):
        model = build(generator, TokenSpec(**spec))
    count = sum(p.numel() for p in model.parameters()) / 1e6
    assert count == pytest.approx(BUILT[name], abs=0.01)
    trained = NAR.config(NAR.official(model))
    if (release := {one.name: one for one in NAR.releases}.get(f"nar-{name}")) is not None:
        assert trained == NAR.config(release.config)
        assert release.recipe == (f"generators/nar/{name}",)
        # Bare weights of a released size need no config.
        shapes = {entry.theirs[0]: model.get_parameter(entry.ours) for entry in NAR.entries(model)}
        seen = NAR.observed(NAR.constants(shapes), shapes)
        assert NAR.config(seen) == NAR.config(release.config)
