"""Safetensors: strict reading, one-line errors naming file and key."""

import json

import pytest
import torch
from torch import nn

from vistok.storage.weights import (
    WeightsError,
    load_strict,
    read_safetensors,
    sha256,
    write_safetensors,
)


class Model(nn.Module):
    """What ok.safetensors of the broken files holds."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(8, 16)
        self.quantize = nn.Module()
        self.quantize.codebook = nn.Parameter(torch.zeros(32, 8))


def test_round_trip_is_bit_equal(tmp_path):
    a, b = Model(), Model()
    b.quantize.codebook.data.normal_()
    write_safetensors(a.state_dict(), tmp_path / "a.safetensors")
    load_strict(b, read_safetensors(tmp_path / "a.safetensors"), "a")
    for name, tensor in a.state_dict().items():
        assert torch.equal(tensor, b.state_dict()[name])


def test_tied_and_transposed_tensors_can_be_written(tmp_path):
    x = torch.arange(6.0).view(2, 3)
    write_safetensors({"a": x, "b": x, "c": x.T, "d": x[:, 1:]}, tmp_path / "t.safetensors")
    back = read_safetensors(tmp_path / "t.safetensors")
    assert torch.equal(back["b"], x) and torch.equal(back["c"], x.T)
    assert back["d"].tolist() == [[1, 2], [4, 5]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("encoder.bias"), "missing encoder.bias;"),
        (lambda t: t.update(extra=torch.zeros(1)), "unexpected extra;"),
        (lambda t: t.update({"encoder.bias": torch.zeros(3)}), r"shape \(3,\); expected \(16,\)"),
        (lambda t: t["encoder.bias"].fill_(torch.nan), "not finite in encoder.bias"),
    ],
)
def test_wrong_tensors_load_nothing(fails, change, words):
    model = Model()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    tensors = {k: v + 1 for k, v in before.items()}
    change(tensors)
    with fails(WeightsError, "file.safetensors: ", words):
        load_strict(model, tensors, "file.safetensors")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_many_names_are_shortened(fails):
    with fails(WeightsError, "missing a, b, c and 2 more"):
        module = nn.ParameterDict({name: torch.zeros(1) for name in "edcba"})
        load_strict(module, {}, "f")


def test_sha256_is_of_the_bytes(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256(tmp_path / "x").startswith("ba7816bf8f01cfea414140de5dae2223")


def test_broken_files(fails, broken):
    """Every safetensors file of the manifest does what the manifest asks for."""
    manifest = json.loads((broken / "manifest.json").read_text())
    listed = manifest["files"] if isinstance(manifest, dict) else manifest
    names = [f for f in listed if f["file"].endswith(".safetensors")]
    assert len(names) >= 8
    for entry in names:
        path, model = broken / entry["file"], Model()
        if entry["expect"] == "ok":
            load_strict(model, read_safetensors(path), path)
        elif entry["expect"] == "error":
            with fails(WeightsError, entry["file"]):
                read_safetensors(path)
        else:
            with fails(WeightsError, entry["file"]) as _:
                load_strict(model, read_safetensors(path), path)


def test_broken_weights_name_their_tensors(fails, broken):
    with fails(WeightsError, "encoder.bias, quantize.codebook"):
        path = broken / "nan_weights.safetensors"
        load_strict(Model(), read_safetensors(path), path)
    with fails(WeightsError, "missing encoder.bias; unexpected extra.thing"):
        path = broken / "wrong_keys.safetensors"
        load_strict(Model(), read_safetensors(path), path)


def test_missing_file(fails, tmp_path):
    with fails(WeightsError, "none.safetensors: no such weights file"):
        read_safetensors(tmp_path / "none.safetensors")
