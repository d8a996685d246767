"""I3D: the published file's keys, SAME padding, frames, TorchScript refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vistok.frozen import BadWeights, MissingWeights, video_network
from vistok.frozen.files import FOLDER
from vistok.frozen.hf import VIDEOMAE
from vistok.frozen.i3d import _MIXED, I3D, InceptionI3D, same_padding
from vistok.storage.weights import sha256


def _published_keys() -> list[str]:
    """Of i3d_pretrained_400.pt, written down from its description."""
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    unit = lambda name: [f"{name}.conv3d.weight", *(f"{name}.bn.{part}" for part in norm)]
    keys = [key for n in ("1a_7x7", "2b_1x1", "2c_3x3") for key in unit(f"Conv3d_{n}")]
    for block in _MIXED:
        for branch in ("b0", "b1a", "b1b", "b2a", "b2b", "b3b"):
            keys += unit(f"{block}.{branch}")
    return [*keys, "logits.conv3d.weight", "logits.conv3d.bias"]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Random weights under the published names, of healthy size at every depth."""
    torch.manual_seed(0)
    network = InceptionI3D()
    state = {}
    for key, value in network.state_dict().items():
        if value.ndim == 5:
            value = torch.randn_like(value) * (2 / value[0].numel()) ** 0.5
        elif key.endswith(("running_var", "bn.weight")):
            value = 0.5 + torch.rand_like(value)
        elif value.is_floating_point():
            value = 0.1 * torch.randn_like(value)
        state[key.removeprefix("trunk.")] = value
    path = tmp_path_factory.mktemp("i3d") / "i3d_pretrained_400.pt"
    torch.save(state, path)
    return path


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    monkeypatch.delenv(FOLDER, raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *a, **k: pytest.fail("fetched"))


def test_keys_and_size_are_those_of_the_file(file):
    state = torch.load(file, weights_only=True)
    assert sorted(state) == sorted(_published_keys())
    learned = sum(v.numel() for k, v in state.items() if "running" not in k and "num_" not in k)
    assert learned == 12_697_264  # of Kinetics-400's RGB network


@pytest.mark.parametrize("size", [1, 2, 5, 8, 9, 224])
@pytest.mark.parametrize(("kernel", "stride"), [(7, 2), (3, 1), (3, 2), (2, 2), (1, 1), (1, 2)])
def test_same_padding_is_tensorflows(size, kernel, stride):
    before, behind = same_padding((size,), (kernel,), (stride,))
    out = (size + before + behind - kernel) // stride + 1
    assert out == -(-size // stride) and 0 <= behind - before <= 1
    assert before == behind == 0 or (size + before + behind - kernel) % stride == 0


def test_axes_are_padded_each_by_its_own(file):
    clips = torch.zeros(1, 1, 4, 5, 6)
    padded = F.pad(clips, same_padding(clips.shape[2:], (3, 3, 3), (2, 2, 2)))
    assert padded.shape[2:] == (5, 7, 7)


def test_logits_of_clips(file):
    network = video_network("i3d", file)
    assert isinstance(network, I3D) and network.dim == 400 and network.sha256 == sha256(file)
    assert network.preprocess == "larp; to 224; 2 x - 1"
    clips = torch.rand(2, 3, 9, 64, 64, generator=torch.Generator().manual_seed(0))
    logits = network(clips)
    assert logits.shape == (2, 400) and logits.isfinite().all()
    assert (logits[0] - logits[1]).abs().max() > 1e-3  # the clips are told apart
    turned = network(clips[:1].flip(2))
    assert (turned[0] - logits[0]).abs().max() > 1e-3  # and their direction is felt
    with pytest.raises(ValueError, match="clips of 8 frames; expected 9 or more"):
        network(clips[:, :, :8])


def test_torchscript_is_refused_since_it_is_code(tmp_path, fails):
    path = tmp_path / "i3d_torchscript.pt"
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
    with fails(
        BadWeights,
        "TorchScript, which is code",
        "i3d_torchscript.pt",
        "i3d_pretrained_400.pt of Vid",
    ):
        video_network("i3d", path)


def test_never_fetched(tmp_path, fails):
    for weights in (None, tmp_path / "nothing.pt"):
        with fails(MissingWeights, "i3d_pretrained_400.pt", "VideoGPT", FOLDER, "--weights"):
            video_network("i3d", weights)


def test_other_files_and_names_are_refused(file, tmp_path, fails):
    state = torch.load(file, weights_only=True)
    state.pop("Mixed_4c.b1b.conv3d.weight")
    torch.save(state, tmp_path / "a.pt")
    with fails(BadWeights, "lacks 'trunk.Mixed_4c.b1b.conv3d.weight'"):
        video_network("i3d", tmp_path / "a.pt")
    with fails(ValueError, "unknown video network 'i3e'; did you mean 'i3d'"):
        video_network("i3e")
    with fails(ValueError, "unknown preset of clips 'lrap'"):
        video_network("i3d", file, clips="lrap")


@pytest.mark.parametrize("name", ["i3d", "videomae"])
def test_hollow(name, monkeypatch):
    if name == "videomae":
        pytest.importorskip("transformers")
        # The library computes its table of positions in Python, on no device.
        monkeypatch.setitem(VIDEOMAE.shape, "image_size", 32)
    with torch.device("meta"):
        network = video_network(name)
    assert network.sha256 == "" and all(p.is_meta for p in network.parameters())
