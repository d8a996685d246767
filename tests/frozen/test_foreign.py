"""Inception and LPIPS, with made-up weights in the format of the published files."""

from __future__ import annotations

import io

import pytest
import torch

from vistok.frozen import BadWeights, MissingWeights, feature_network, perceptual_network
from vistok.frozen.files import FOLDER

pytestmark = pytest.mark.usefixtures("offline")


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


def test_inception_also_gives_what_isc_and_sfid_need(inception_file):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    ours = feature_network("inception", inception_file)
    theirs = FeatureExtractorInceptionV3(
        "reference", ["logits_unbiased"], feature_extractor_weights_path=str(inception_file)
    )
    maps = []  # the block begins with the branch that ADM's `mixed_6/conv` is
    theirs.Mixed_6d.register_forward_hook(lambda module, given, made: maps.append(made))
    pixels = torch.randint(0, 256, (2, 3, 40, 30), dtype=torch.uint8)
    seen = ours.features(pixels)
    assert torch.equal(seen.logits, theirs(pixels)[0]) and ours.classes == seen.logits.shape[1]
    assert torch.equal(seen.pool, ours(pixels))
    assert seen.spatial.shape == (2, 2023) == (2, ours.spatial_dim)
    last = seen.spatial.view(2, 17, 17, 7)  # channels last, as published statistics have them
    assert torch.equal(last, maps[0][:, :7].permute(0, 2, 3, 1)) and last.std() > 0
    assert "299" in ours.preprocess
    assert not ours.network.Mixed_6d.branch1x1._forward_hooks  # nothing is left behind


@pytest.mark.slow
def test_same_pixels_same_numbers_as_torch_fidelity(inception_file):
    """Their reading of the same uint8 images, then their measures.

    For FID the features are cut to 6 of 2048, so that a few images have a covariance of full
    rank, which their roots need.
    """
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric
    from torch_fidelity.utils import (
        create_feature_extractor,
        extract_featuresdict_from_input_id_cached,
    )

    from vistok.metrics import FeatureStats, InceptionScore, frechet_distance, kid, prdc

    class Images(torch.utils.data.Dataset):
        def __init__(self, seed: int, low: int) -> None:
            generator = torch.Generator().manual_seed(seed)
            self.pixels = torch.randint(low, 256, (14, 3, 8, 8), generator=generator).byte()

        def __len__(self) -> int:
            return len(self.pixels)

        def __getitem__(self, i: int) -> torch.Tensor:
            return self.pixels[i]

    decoded, real = Images(0, 0), Images(1, 60)
    asked = {
        **{"input1": decoded, "input2": real, "cuda": False, "verbose": False, "batch_size": 5},
        **{"feature_extractor_weights_path": str(inception_file), "cache": False},
        "save_cpu_ram": True,  # no worker processes
    }
    layers = ["2048", "logits_unbiased"]
    extractor = create_feature_extractor("inception-v3-compat", layers, **asked)
    theirs = [extract_featuresdict_from_input_id_cached(i, extractor, **asked) for i in (1, 2)]
    x, y = (one["2048"] for one in theirs)
    stats = [fid_features_to_statistics(side[:, :6].double()) for side in (x, y)]
    fid = fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"]
    their_kid = kid_features_to_metric(x, y, kid_subsets=9, kid_subset_size=10, verbose=False)
    score = isc_features_to_metric(theirs[0]["logits_unbiased"])["inception_score_mean"]
    prc = prc_features_to_metric(x, y, verbose=False)

    network = feature_network("inception", inception_file)
    other = network(real.pixels)
    for batch in (1, 14):
        seen = [network.features(part) for part in decoded.pixels.split(batch)]
        mine, ours = torch.cat([one.pool for one in seen]), InceptionScore(1008, 14)
        ours.update(torch.cat([one.logits for one in seen]), torch.arange(14))
        near, far = (FeatureStats.of(side[:, :6]) for side in (mine, other))
        assert frechet_distance(near, far) == pytest.approx(fid, rel=1e-5)
        assert frechet_distance(near, near) < 1e-9
        found = kid(mine, other, 9, 10).mean
        assert found == pytest.approx(
            their_kid["kernel_inception_distance_mean"], rel=1e-4, abs=1e-6
        )
        both = prdc(mine, other)
        assert both.precision == pytest.approx(prc["precision"], abs=1e-6)
        assert both.recall == pytest.approx(prc["recall"], abs=1e-6)
        assert ours.compute().mean == pytest.approx(score, rel=1e-5)


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
