"""Frozen networks under `torch.device("meta")`: shapes without storage, and no weight file."""

from __future__ import annotations

import pytest
import torch

from vistok.frozen import FEATURES, PERCEPTUAL, MissingWeights, feature_network, perceptual_network
from vistok.frozen.files import Source


@pytest.fixture
def nowhere(monkeypatch):
    """No file of weights can be found, and none may be looked for."""

    def find(self, weights=None):
        raise MissingWeights(f"{self.network} was looked for")

    monkeypatch.setattr(Source, "find", find)


@pytest.mark.parametrize("name", [*(n for n in FEATURES if n != "pixels-8"), *PERCEPTUAL])
def test_no_weights_are_needed(name, nowhere):
    make = feature_network if name in FEATURES else perceptual_network
    with torch.device("meta"):
        network = make(name)
    parameters = list(network.parameters())
    assert parameters and all(p.is_meta and not p.requires_grad for p in parameters)
    assert not network.train().training
    assert network.sha256 == ""


def test_shapes_are_those_of_the_real_network():
    with torch.device("meta"):
        hollow = perceptual_network("vistok-cnn")
    real = perceptual_network("vistok-cnn")
    shapes = lambda network: {key: value.shape for key, value in network.state_dict().items()}
    assert shapes(hollow) == shapes(real)
    assert real.sha256 and not any(p.is_meta for p in real.parameters())


def test_a_path_that_is_not_here_is_no_obstacle(tmp_path):
    with torch.device("meta"):
        assert sum(p.numel() for p in feature_network("vistok-cnn", tmp_path / "a").parameters())
    with pytest.raises(MissingWeights):
        feature_network("vistok-cnn", tmp_path / "a")


def test_outside_the_context_weights_are_still_asked_for(nowhere):
    with pytest.raises(MissingWeights, match="lpips-alex was looked for"):
        perceptual_network("lpips-alex")
