"""The distance of FID's features: the library's network, step by step and differentiable."""

import torch

from vistok.frozen import inception
from vistok.frozen.inception import Inception, InceptionDistance


def test_pooled_features_are_those_of_fid(monkeypatch):
    """With weights of no training: what counts is the way through the network."""
    monkeypatch.setattr(inception, "hollow", lambda: True)
    looks = Inception()
    monkeypatch.setattr(inception, "Inception", lambda weights=None: looks)
    distance = InceptionDistance(top=255.0)
    assert InceptionDistance(top=510.0).name == "inception-pool-510"
    pixels = torch.randint(0, 256, (2, 3, 40, 40), generator=torch.Generator().manual_seed(0))
    pixels = pixels.to(torch.uint8)
    with torch.no_grad():
        expected = looks.features(pixels).pool
    ours = (pixels.float() / 255).requires_grad_()
    found = distance.maps(ours)[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    between = distance.between([found], [expected + 0.5])
    torch.testing.assert_close(between, torch.full((2,), 0.25), rtol=1e-3, atol=1e-4)
    between.sum().backward()
    assert ours.grad.isfinite().all() and ours.grad.abs().sum() > 0
