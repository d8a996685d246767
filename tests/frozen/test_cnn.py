"""The embedded network: shapes, weight file, feature and perceptual views."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from vistok.config import Config, PartOf, validate
from vistok.config.registry import build
from vistok.frozen import (
    BadWeights,
    CNNConfig,
    MissingWeights,
    ResNet9,
    feature_network,
    perceptual_network,
    save_weights,
)
from vistok.frozen.cnn import WEIGHTS

SMALL = CNNConfig(widths=(4, 6, 8, 10))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    module = ResNet9(SMALL)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.2)
                layer.running_var.uniform_(0.5, 2)
                layer.weight.uniform_(0.5, 2)
    path = tmp_path_factory.mktemp("cnn") / "w.safetensors"
    return module.eval(), path, save_weights(module, path)


def _bytes(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(
        0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def test_a_config_builds_it():
    class Task(Config):
        module: Annotated[Any, PartOf("classifier")]

    task = validate(Task, {"module": {"kind": "resnet9", "classes": 7, "widths": [4, 4, 4, 4]}})
    assert build(task.module)(torch.rand(2, 3, 32, 32)).shape == (2, 7)


def test_size_of_the_default_network():
    module = ResNet9()
    assert sum(p.numel() for p in module.parameters()) <= 1_500_000
    assert 128 <= module.dim <= 512
    maps, pooled = module.eval().features(torch.rand(2, 3, 32, 32))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (32, 32, 32),
        (64, 16, 16),
        (128, 8, 8),
        (192, 4, 4),
    ]
    assert pooled.shape == (2, module.dim)
    torch.testing.assert_close(pooled[:, -192:], maps[-1].mean((2, 3)))


def test_file_holds_the_network_in_half_the_bits(weights):
    module, path, digest = weights
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert {t.dtype for t in load_file(path).values()} == {torch.float16, torch.int64}
    network = feature_network("vistok-cnn", path)
    assert (network.name, network.dim, network.sha256) == ("vistok-cnn", 18, digest)
    pixels = _bytes(5, 3, 32, 32)
    truth = module.features(pixels / 255)[1]
    torch.testing.assert_close(network(pixels), truth, rtol=5e-3, atol=5e-3)


def test_features_do_not_depend_on_batch_or_autocast(weights):
    network, pixels = feature_network("vistok-cnn", weights[1]), _bytes(4, 3, 48, 40)
    whole = network(pixels)
    assert whole.dtype == torch.float32 and not whole.requires_grad
    parts = torch.cat([network(p) for p in pixels.split(1)])
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network(pixels), whole)


def test_frozen_for_good(weights):
    for network in (
        feature_network("vistok-cnn", weights[1]),
        perceptual_network("vistok-cnn", weights[1]),
    ):
        torch.nn.Sequential(network).train()
        assert not any(m.training for m in network.modules())
        assert not any(p.requires_grad for p in network.parameters())


def test_perceptual_distance(weights):
    network = perceptual_network("vistok-cnn", weights[1])
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(3, 3, 32, 32, generator=generator)
    noise = torch.randn(target.shape, generator=generator)
    assert torch.equal(network(target, target), torch.zeros(3))
    near, far = (network((target + s * noise).clamp(0, 1), target) for s in (0.05, 0.4))
    assert near.shape == (3,) and (0 < near).all() and (near < far).all() and (far <= 2).all()
    pred = (target + 0.1 * noise).requires_grad_()
    network(pred, target).sum().backward()
    assert pred.grad.isfinite().all() and (pred.grad.flatten(1).norm(dim=1) > 0).all()


def test_perceptual_distance_is_two_minus_two_cosines(weights):
    network, module = perceptual_network("vistok-cnn", weights[1]), ResNet9(SMALL).eval()
    module.load_state_dict({k: v.float() for k, v in load_file(weights[1]).items()})
    a, b = torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    truth = torch.zeros(2)
    for x, y in zip(module.features(a)[0], module.features(b)[0], strict=True):
        x, y = x.flatten(2), y.flatten(2)
        nx, ny = x.norm(dim=1), y.norm(dim=1)
        ux, uy = x / nx.clamp_min(1e-10)[:, None], y / ny.clamp_min(1e-10)[:, None]
        truth += ((ux - uy) ** 2).sum(1).mean(1) / 4
    torch.testing.assert_close(network(a, b), truth, rtol=1e-4, atol=1e-6)


def test_gradient_is_finite_where_a_map_is_zero():
    from vistok.frozen.network import unit

    maps = torch.zeros(1, 4, 2, 2, requires_grad=True)
    (unit(maps) ** 2).sum().backward()
    assert maps.grad.isfinite().all()


def test_the_embedded_weights():
    network = feature_network("vistok-cnn")
    assert WEIGHTS.stat().st_size <= 3_000_000 and network.dim == 320
    assert network.sha256 in WEIGHTS.with_suffix(".md").read_text()
    features = network(_bytes(4, 3, 32, 32))
    assert features.shape == (4, 320) and features.isfinite().all() and features.std() > 0


def test_refusals_are_one_line(weights, tmp_path):
    network = feature_network("vistok-cnn", weights[1])
    distance = perceptual_network("vistok-cnn", weights[1])
    with pytest.raises(ValueError, match="expected uint8"):
        network(torch.rand(1, 3, 32, 32))
    with pytest.raises(ValueError, match="expected two equal shapes"):
        distance(torch.rand(1, 3, 32, 32), torch.rand(2, 3, 32, 32))
    with pytest.raises(ValueError, match="expected float in 0"):
        distance(_bytes(1, 3, 32, 32), _bytes(1, 3, 32, 32))
    with pytest.raises(MissingWeights, match="`vistok train feature_net`") as error:
        feature_network("vistok-cnn", tmp_path / "none.safetensors")
    assert "\n" not in str(error.value) and "none.safetensors" in str(error.value)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(1)}, foreign)
    with pytest.raises(BadWeights, match="expected 'vistok-cnn'"):
        feature_network("vistok-cnn", foreign)
    config = SMALL.model_dump_json()
    state = load_file(weights[1])
    for broken, message in (
        ({k: v for k, v in state.items() if k != "head.bias"}, r"lacks 'head\.bias'"),
        ({**state, "head.bias": torch.zeros(3)}, r"'head\.bias' has shape \(3,\)"),
    ):
        save_file(broken, foreign, {"format": "vistok-cnn", "config": config})
        with pytest.raises(BadWeights, match=message):
            feature_network("vistok-cnn", foreign)
    foreign.write_bytes(b"junk")
    with pytest.raises(BadWeights, match="not a safetensors file"):
        feature_network("vistok-cnn", foreign)
    module = ResNet9(SMALL)
    torch.nn.init.constant_(module.head.bias, 1e6)
    with pytest.raises(BadWeights, match=r"'head\.bias' has values beyond fp16"):
        save_weights(module, tmp_path / "huge.safetensors")
    assert not list(tmp_path.glob("*huge*"))
