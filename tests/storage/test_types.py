"""Types of tensors are checked like their shapes, wherever weights are loaded."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.support import tiny_text
from tests.support.official import official, write_shards
from vistok.frozen import BadWeights, feature_network
from vistok.frozen.cnn import WEIGHTS as CNN
from vistok.frozen.files import fitted
from vistok.frozen.text import TextEncoder, TextEncoderConfig
from vistok.pretrained import from_official, load
from vistok.storage.weights import (
    WeightsError,
    load_strict,
    misfit,
    read_safetensors,
    write_safetensors,
)
from vistok.tokenizer import Tokenizer


class Model(nn.Module):
    """A weight, a counter and a flag."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.register_buffer("count", torch.zeros(2, dtype=torch.int32))
        self.register_buffer("filled", torch.zeros(2, dtype=torch.bool))


FITS = [
    ("weight", torch.tensor([1.5, -2.0], dtype=torch.float64)),
    ("weight", torch.tensor([1.5, -2.0], dtype=torch.bfloat16)),
    ("weight", torch.tensor([1.5, -2.0], dtype=torch.float16)),
    ("weight", torch.tensor([1.5, -2.0]).to(torch.float8_e4m3fn)),
    ("count", torch.tensor([3, -4], dtype=torch.int64)),
    ("count", torch.tensor([3, 4], dtype=torch.uint8)),
]
WRONG = [
    ("weight", torch.tensor([True, False]), r"has type bool \(boolean\); expected float32"),
    ("weight", torch.tensor([1, 2]), r"has type int64 \(integer\); expected float32"),
    ("weight", torch.tensor([1, 2j]), r"has type complex64 \(complex\); expected float32"),
    ("weight", torch.tensor([1.0, 1e300], dtype=torch.float64), "do not fit float32"),
    ("weight", torch.tensor([1.0, torch.nan]), "values that are not finite in weight"),
    ("count", torch.tensor([1.0, 2.0]), r"has type float32 \(floating point\); expected int32"),
    ("count", torch.tensor([1, 2**31]), "has values of int64 that do not fit int32"),
    ("count", torch.tensor([1, 2**63], dtype=torch.uint64), "do not fit int32"),
    ("count", torch.tensor([True, False]), r"has type bool \(boolean\); expected int32"),
    ("filled", torch.tensor([0, 1]), r"has type int64 \(integer\); expected bool"),
    ("filled", torch.tensor([0.0, 1.0]), "expected bool"),
]


@pytest.mark.parametrize(("key", "tensor"), FITS)
def test_other_precisions_fit(tmp_path, key, tensor):
    save_file({**Model().state_dict(), key: tensor}, tmp_path / "w.safetensors")
    model = Model()
    load_strict(model, read_safetensors(tmp_path / "w.safetensors"), "w")
    assert model.state_dict()[key].tolist() == tensor.to(torch.float64).tolist()


@pytest.mark.parametrize(("key", "tensor", "words"), WRONG)
def test_other_types_load_nothing(tmp_path, fails, key, tensor, words):
    model = Model()
    before = {name: one.clone() for name, one in model.state_dict().items()}
    write_safetensors({**before, key: tensor}, tmp_path / "w.safetensors")
    tensors = read_safetensors(tmp_path / "w.safetensors")
    with fails(WeightsError, "w.safetensors: ", key, words):
        load_strict(model, tensors, "w.safetensors")
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())


def test_types_without_values_are_looked_at_too():
    assert misfit(torch.zeros(0, dtype=torch.bool), torch.float32) is not None
    assert misfit(torch.zeros(0, dtype=torch.float64), torch.float32) is None


CHANGES = {
    "bool": (lambda one: one > 0, "bool"),
    "integer": (lambda one: one.long(), "int64"),
    "complex": (lambda one: one.to(torch.complex64), "complex64"),
    "overflow": (lambda one: one.double() + 1e300, "do not fit float32"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_every_way_to_load_a_tokenizer(make_tokenizer, tmp_path, fails, kind):
    change, words = CHANGES[kind]
    make_tokenizer("vq").save_pretrained(tmp_path / "ours")
    path = tmp_path / "ours/model.safetensors"
    tensors = read_safetensors(path)
    tensors["quantizer.codebook"] = change(tensors["quantizer.codebook"])
    write_safetensors(tensors, path)
    with fails(WeightsError, "model.safetensors: quantizer.codebook has", words):
        Tokenizer.from_pretrained(tmp_path / "ours")

    family, state, config = official("titok-pixel")
    key = "encoder.transformer.0.ln_1.weight"
    state[key] = change(state[key])
    with fails(WeightsError, f"somewhere: {key} has", words):
        from_official(family, state, config, "somewhere")
    folder = tmp_path / "official"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    torch.save({"state_dict": state}, folder / "weights.ckpt")
    with fails(WeightsError, f"weights.ckpt: {key} has", words):
        load(folder / "weights.ckpt")
    write_shards(folder, state)
    with fails(WeightsError, f"official: {key} has", words):
        load(folder)


@pytest.mark.filterwarnings("ignore:Casting complex")
@pytest.mark.parametrize("kind", CHANGES)
def test_frozen_networks(tmp_path, fails, kind):
    change, words = CHANGES[kind]
    from safetensors import safe_open

    with safe_open(CNN, framework="pt") as file:
        header = file.metadata()
    tensors = read_safetensors(CNN)
    tensors["head.weight"] = change(tensors["head.weight"].float())
    save_file(tensors, tmp_path / "cnn.safetensors", header)
    with fails(BadWeights, "vistok-cnn: 'head.weight' of the weight file has", words):
        feature_network("vistok-cnn", tmp_path / "cnn.safetensors")

    folder = tiny_text.clip(tmp_path / "clip")
    path = tmp_path / "clip/model.safetensors"
    tensors = read_safetensors(path)
    key = next(name for name in tensors if name.endswith("final_layer_norm.weight"))
    save_file({**tensors, key: change(tensors[key])}, path, {"format": "pt"})
    with fails(BadWeights, f"clip:.*'({key}|.*final_layer_norm.weight)' of .* (type|not finite)"):
        TextEncoder(TextEncoderConfig(path=folder))


def test_a_frozen_network_gets_the_types_it_was_built_with(fails):
    own = Model().state_dict()
    half = {**own, "weight": torch.tensor([1.5, 2.5], dtype=torch.float16)}
    assert fitted(own, half, "net")["weight"].dtype == torch.float32
    with fails(BadWeights, "net: 'weight' of the weight file has values that are not finite"):
        fitted(own, {**own, "weight": torch.tensor([1.0, torch.inf])}, "net")
