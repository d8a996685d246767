"""ConvNeXt-S logits, with made-up weights in the format of torchvision's file."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vistok.frozen import BadWeights, MissingWeights, perceptual_network
from vistok.frozen.convnext import _FILE, _MEAN, _SOURCE, _STD
from vistok.frozen.files import FOLDER

NAME = "convnext-s-logits"


pytestmark = pytest.mark.usefixtures("offline")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """50 million parameters that are views of one random row: the file holds it once."""
    from torchvision.models import convnext_small

    with torch.device("meta"):
        shapes = {k: v.shape for k, v in convnext_small(weights=None).state_dict().items()}
    longest = max(shape.numel() for shape in shapes.values())
    row = 0.05 * torch.randn(longest, generator=torch.Generator().manual_seed(0))
    state = {key: row[: shape.numel()].view(shape) for key, shape in shapes.items()}
    path = tmp_path_factory.mktemp("convnext") / _FILE
    torch.save(state, path)
    return path


def test_it_is_torchvision(weights, monkeypatch):
    from torchvision.models import ConvNeXt_Small_Weights, convnext_small

    assert ConvNeXt_Small_Weights.IMAGENET1K_V1.url == _SOURCE.url
    ours = perceptual_network(NAME, weights)
    with torch.device("meta"):
        theirs = convnext_small(weights=None)
    theirs.load_state_dict(torch.load(weights, weights_only=True), assign=True)
    preprocess = ConvNeXt_Small_Weights.IMAGENET1K_V1.transforms()
    assert (list(_MEAN), list(_STD)) == (preprocess.mean, preprocess.std)
    a, b = torch.rand(2, 2, 3, 40, 30, generator=torch.Generator().manual_seed(0))
    a.requires_grad_()
    distance = ours(a, b)

    def logits(x):
        x = F.interpolate(x, 224, mode="bilinear", align_corners=False, antialias=True)
        x = (x - torch.tensor(_MEAN).view(1, 3, 1, 1)) / torch.tensor(_STD).view(1, 3, 1, 1)
        return theirs.eval()(x)

    with torch.no_grad():
        expected = F.mse_loss(logits(a), logits(b))
    assert distance.shape == (2,) and expected > 0
    torch.testing.assert_close(distance.mean(), expected, rtol=1e-4, atol=0)
    distance.sum().backward()
    assert a.grad.isfinite().all() and a.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in ours.train().parameters())
    assert not any(m.training for m in ours.modules()) and len(ours.sha256) == 64
    monkeypatch.setenv(FOLDER, str(weights.parent))
    assert perceptual_network(NAME).sha256 == ours.sha256


@pytest.mark.parametrize("given", [False, True])
def test_missing_weights_say_what_to_fetch(given, tmp_path, fails):
    words = (NAME, _FILE, "torchvision", "https://", FOLDER, "--weights")
    with fails(MissingWeights, *words):
        perceptual_network(NAME, tmp_path / "nothing.pth" if given else None)


def test_other_weights_are_refused(weights, tmp_path, fails):
    path = tmp_path / "other.pth"
    state = torch.load(weights, weights_only=True)
    torch.save({**state, "classifier.2.bias": torch.zeros(10)}, path)
    with fails(BadWeights, "classifier.2.bias", r"has shape \(10,\)"):
        perceptual_network(NAME, path)
    del state["classifier.2.bias"]
    torch.save(state, path)
    with fails(BadWeights, "lacks 'classifier.2.bias'"):
        perceptual_network(NAME, path)
