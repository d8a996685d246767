"""Inception and LPIPS, with made-up weights in the format of the published files."""

from __future__ import annotations

import io
import urllib.error

import pytest
import torch

from vistok.frozen import BadWeights, MissingWeights, feature_network, perceptual_network
from vistok.frozen.files import FOLDER


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No folder of weights, an empty cache, and no network."""

    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network in tests")

    monkeypatch.delenv(FOLDER, raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Untrained(FeatureExtractorInceptionV3):
        def load_state_dict(self, state):
            pass

    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    torch.manual_seed(0)
    network = Untrained("made-up", ["2048"], feature_extractor_weights_path=empty)
    path = tmp_path_factory.mktemp("inception") / "weights-inception-2015-12-05-6726825d.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def alex_file(tmp_path_factory):
    generator = torch.Generator().manual_seed(0)
    shapes = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3)}
    shapes[10] = (256, 256, 3)
    state = {"classifier.1.weight": torch.zeros(4, 4)}  # there, and not needed
    for i, (out, inside, side) in shapes.items():
        weight = torch.randn(out, inside, side, side, generator=generator)
        state[f"features.{i}.weight"] = weight * (2 / (inside * side**2)) ** 0.5
        state[f"features.{i}.bias"] = 0.1 * torch.randn(out, generator=generator)
    path = tmp_path_factory.mktemp("alex") / "alexnet-owt-7be5be79.pth"
    torch.save(state, path)
    return path


def test_inception_is_torch_fidelity(inception_file, monkeypatch):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    ours = feature_network("inception", inception_file)
    theirs = FeatureExtractorInceptionV3(
        "reference", ["2048"], feature_extractor_weights_path=str(inception_file)
    )
    pixels = torch.randint(0, 256, (2, 3, 40, 30), dtype=torch.uint8)
    features = ours(pixels)
    assert features.shape == (2, 2048) == (2, ours.dim) and features.std() > 0
    assert torch.equal(features, theirs(pixels)[0])
    assert len(ours.sha256) == 64
    monkeypatch.setenv(FOLDER, str(inception_file.parent))
    assert feature_network("inception").sha256 == ours.sha256


@pytest.mark.filterwarnings("ignore:.*weights:UserWarning")
def test_lpips_is_the_package(alex_file, monkeypatch):
    import lpips

    ours = perceptual_network("lpips-alex", alex_file)
    theirs = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    trunk = torch.load(alex_file, weights_only=True)
    theirs.net.load_state_dict(
        {key: trunk[f"features.{key.partition('.')[2]}"] for key in theirs.net.state_dict()}
    )
    a, b = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    a.requires_grad_()
    distance = ours(a, b)
    torch.testing.assert_close(distance, theirs(a, b, normalize=True).flatten(), rtol=1e-5, atol=0)
    distance.sum().backward()
    assert a.grad.isfinite().all() and a.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in ours.train().parameters())
    assert not any(m.training for m in ours.modules())
    monkeypatch.setenv(FOLDER, str(alex_file.parent))
    assert perceptual_network("lpips-alex").sha256 == ours.sha256


def test_lpips_vgg_reads_a_vgg(tmp_path):
    widths = {0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128)}
    widths |= {12: (256, 256), 14: (256, 256), 17: (512, 256), 19: (512, 512), 21: (512, 512)}
    widths |= {24: (512, 512), 26: (512, 512), 28: (512, 512)}
    state = {}
    for i, (out, inside) in widths.items():
        state[f"features.{i}.weight"] = (torch.randn(out, inside, 3, 3) / (3 * inside**0.5)).half()
        state[f"features.{i}.bias"] = torch.zeros(out).half()
    torch.save(state, tmp_path / "vgg16-397923af.pth")
    network = perceptual_network("lpips-vgg", tmp_path)
    target = torch.rand(1, 3, 32, 32)
    assert network(target, target).item() == 0 and network(1 - target, target).item() > 0


@pytest.mark.parametrize(
    ("name", "file", "project"),
    [
        ("inception", "weights-inception-2015-12-05-6726825d.pth", "torch-fidelity"),
        ("lpips-vgg", "vgg16-397923af.pth", "torchvision"),
        ("lpips-alex", "alexnet-owt-7be5be79.pth", "torchvision"),
    ],
)
@pytest.mark.parametrize("given", [False, True])
def test_missing_weights_say_what_to_fetch(name, file, project, given, tmp_path):
    door = feature_network if name == "inception" else perceptual_network
    with pytest.raises(MissingWeights) as error:
        door(name, tmp_path / "nothing.pth" if given else None)
    message = str(error.value)
    for part in (name, file, project, "https://", FOLDER, "--weights"):
        assert part in message
    assert "\n" not in message and ("nothing.pth" in message) == given


@pytest.mark.parametrize("name", ["inception", "lpips-alex"])
def test_no_file_runs_code(name, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path = tmp_path / "trap.pth"
    torch.save({"features.0.weight": Trap()}, path)
    door = feature_network if name == "inception" else perceptual_network
    with pytest.raises(BadWeights, match="could run code") as error:
        door(name, path)
    assert "\n" not in str(error.value) and not (tmp_path / "ran").exists()


def test_other_weights_are_refused(tmp_path, alex_file):
    path = tmp_path / "other.pth"
    torch.save({"a": torch.zeros(2)}, path)
    for name, door in (("inception", feature_network), ("lpips-alex", perceptual_network)):
        with pytest.raises(BadWeights, match=r"expected .*\.pth|expected the state dict") as error:
            door(name, path)
        assert "\n" not in str(error.value)
    path.write_bytes(b"junk")
    with pytest.raises(BadWeights, match="not a usable weight file"):
        perceptual_network("lpips-alex", path)
    torch.save([torch.zeros(2)], path)
    with pytest.raises(BadWeights, match="does not map names to tensors"):
        perceptual_network("lpips-alex", path)
    state = torch.load(alex_file, weights_only=True)
    torch.save({**state, "features.3.weight": torch.zeros(1, 2)}, path)
    with pytest.raises(BadWeights, match=r"has shape \(1, 2\)"):
        perceptual_network("lpips-alex", path)


def test_unknown_names_get_the_nearest():
    with pytest.raises(ValueError, match="unknown feature network 'incepton'; did you mean 'incep"):
        feature_network("incepton")
    with pytest.raises(ValueError, match="unknown perceptual network 'lpips-vg'; did you mean 'lp"):
        perceptual_network("lpips-vg")
    with pytest.raises(ValueError, match="valid: vistok-cnn, inception"):
        feature_network("lpips-vgg")
