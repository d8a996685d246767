"""`task.init` from a frozen ViT: what is taken, resampled and left, and what does not fit."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import save_file

from tests.frozen.test_vit import official
from tests.support.training import TINY
from vistok.config import ConfigError, validate
from vistok.layers.patchify import resample_kernel
from vistok.layers.positions import resample_positions
from vistok.storage.weights import sha256
from vistok.train.cost.plan import _unstarted
from vistok.train.tasks.tokenizer import TokenizerTask, TokenizerTaskConfig

SIZES = {"width": 16, "depth": 2, "heads": 2}  # of the official file: a 2 x 2 grid of 14 pixels
PART = {
    "kind": "vit",
    "patches": {"size": 8, "positions": "learned", "class_token": True},
    "transformer": {**SIZES, "layer_scale": 1.0e-5},
}
NETWORK = {"kind": "vit", "network": "vit", **SIZES, "image_size": 28, "patch": 14}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "vit.safetensors"
    save_file(official() | {"mask_token": torch.zeros(1, 16)}, path)
    return path


def tree(init, encoder=None, decoder=None) -> dict:
    task = copy.deepcopy(TINY["task"])
    latents = {"grid": [2, 2], "positions": "shared", "levels": True}
    task["tokenizer"] |= {
        "image_size": [24, 32],
        "regularizers": [],
        "encoder": {**PART, "latents": latents, **(encoder or {})},
        "decoder": {**PART, "value_positions": "shared", **(decoder or {})},
    }
    return task | {"init": init}


def started(init, **parts) -> TokenizerTask:
    torch.manual_seed(2)
    return TokenizerTask(validate(TokenizerTaskConfig, tree(init, **parts)), None)


def test_both_parts_take_what_they_share_with_it(file):
    task = started({"network": {**NETWORK, "weights": str(file)}})
    state, theirs, fresh = task.tokenizer.state_dict(), official(), started([])
    for side in ("encoder", "decoder"):
        assert torch.equal(state[f"{side}.class_token"], theirs["cls_token"].flatten())
        table = resample_positions(theirs["pos_embed"][0], (2, 2), (3, 4), lead=1)
        assert torch.equal(state[f"{side}.positions.table"], table)
        for i in range(2):
            ours = f"{side}.transformer.blocks.{i}"
            assert torch.equal(state[f"{ours}.mlp.up.bias"], theirs[f"blocks.{i}.mlp.fc1.bias"])
            qkv = state[f"{ours}.attention.qkv.weight"]
            assert torch.equal(qkv, theirs[f"blocks.{i}.attn.qkv.weight"])
            gain = state[f"{ours}.scale_attention.gamma"]
            assert torch.equal(gain, theirs[f"blocks.{i}.ls1.gamma"])
        assert torch.equal(state[f"{side}.transformer.norm.weight"], theirs["norm.weight"])
    kernel = resample_kernel(theirs["patch_embed.proj.weight"], (8, 8))
    assert torch.equal(state["encoder.patch_embed.proj.weight"], kernel)
    left = ("encoder.latent_tokens", "encoder.levels", "encoder.proj.weight", "decoder.mask_token")
    for name in (*left, "decoder.embed.weight", "decoder.head.proj.weight"):
        assert torch.equal(state[name], fresh.tokenizer.state_dict()[name]), name
    line = f"encoder, decoder from vit (sha256 {sha256(file)})"
    assert task.facts().lines["init 1"] == line


def test_one_part_alone_and_random_weights(file):
    network = {**NETWORK, "weights": str(file)}
    task, fresh = started({"network": network, "parts": ["decoder"]}), started([])
    own = task.tokenizer.state_dict()
    before = fresh.tokenizer.state_dict()
    taken = [key for key, value in before.items() if (own[key] != value).any()]
    assert taken and all(key.startswith("decoder.") for key in taken)
    started({"network": {**NETWORK, "weights": "random"}})


def test_fewer_blocks_leave_the_last_ones_out(file):
    short = {"transformer": {**PART["transformer"], "depth": 1}}
    task = started({"network": {**NETWORK, "weights": str(file)}}, encoder=short, decoder=short)
    assert torch.equal(task.tokenizer.encoder.transformer.norm.bias.data, official()["norm.bias"])


def transformer(**changes) -> dict:
    return {"transformer": {**PART["transformer"], **changes}}


def patches(**changes) -> dict:
    return {"patches": {**PART["patches"], **changes}}


@pytest.mark.parametrize(
    ("init", "parts", "words"),
    [
        ({"network": "dinov2-b"}, {}, "dinov2-b has width=768, but encoder.* has width=16"),
        ({}, {"decoder": transformer(heads=4)}, "vit has heads=2, but decoder.* has heads=4"),
        ({}, {"encoder": transformer(depth=3)}, "vit has depth=2, but encoder.* has depth=3"),
        ({}, {"encoder": transformer(mlp="swiglu")}, "has mlp=gelu, but encoder.* has mlp=swiglu"),
        ({}, {"encoder": transformer(layer_scale=None)}, "layer_scale=True, but encoder.*False"),
        ({}, {"encoder": transformer(norm="rmsnorm")}, "norm=layernorm, but encoder.*rmsnorm"),
        ({"parts": ["quantizer"]}, {}, "starts encoder and decoder, not 'quantizer'"),
        ({"network": "clip"}, {}, "clip starts a vision tower, and 'encoder' is none"),
        ({"network": "vistok-cnn"}, {}, "network '.*cnn' starts no encoder or decoder"),
        ({"network": "dinov3"}, {}, "'dinov3' is no vision network"),
        ({"path": "runs/a"}, {}, "either the path of a tokenizer or the name of a network"),
        ({}, {"decoder": {"kind": "cnn"}}, "but decoder is of kind 'cnn'"),
    ],
)
def test_what_does_not_fit_is_one_line_before_any_weights_are_read(init, parts, words, fails):
    init = {"network": {**NETWORK, "weights": "nowhere.safetensors"}, **init}
    given = tree(init)
    for name, change in parts.items():
        own = given["tokenizer"][name]
        given["tokenizer"][name] = change if "kind" in change else {**own, **change}
    with fails(ConfigError, words):
        validate(TokenizerTaskConfig, given)


def test_positions_must_be_learned(fails):
    init = {"network": {**NETWORK, "weights": "random"}}
    words = "learned positions, but decoder.patches has positions=sincos and class_token=true"
    with fails(ConfigError, words):
        validate(TokenizerTaskConfig, tree(init, decoder=patches(positions="sincos")))


def test_weights_that_are_missing_or_other_are_one_line(tmp_path, fails):
    with fails(ConfigError, "task.init: vit: no weights at .*nowhere"):
        started({"network": {**NETWORK, "weights": str(tmp_path / "nowhere.safetensors")}})
    broken = {k: v for k, v in official().items() if k != "blocks.1.norm2.bias"}
    save_file(broken, tmp_path / "broken.safetensors")
    with fails(ConfigError, "task.init: vit: .*lacks 'transformer.blocks.1.norm_mlp.bias'"):
        started({"network": {**NETWORK, "weights": str(tmp_path / "broken.safetensors")}})


def test_a_plan_needs_no_weights(tmp_path):
    init = {"network": {**NETWORK, "weights": str(tmp_path / "nowhere.safetensors")}}
    notes = []
    task = _unstarted(validate(TokenizerTaskConfig, tree(init)), notes)
    assert task.init == () and notes == ["init: encoder, decoder from vit (not read by a dry run)"]
