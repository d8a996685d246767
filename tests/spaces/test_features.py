"""The features space: a frozen network's maps of images and of each frame of a clip, read only."""

import pytest
import torch

from vistok.config import validate
from vistok.contracts.case import tiny, tiny_tree
from vistok.core.shapes import Shape
from vistok.frozen.vision import EmbeddedVision, EmbeddedVisionConfig
from vistok.spaces.features import FeaturesConfig, FeatureSpace
from vistok.tokenizer import Tokenizer, TokenizerConfig


def test_a_clip_is_seen_frame_by_frame():
    clips = torch.rand(2, 3, 3, 32, 32)
    space = FeatureSpace(FeaturesConfig(depth=2), Shape(3, (3, 32, 32)))
    found, network = space(clips), EmbeddedVision(EmbeddedVisionConfig())
    assert space.shape == Shape(found.shape[1], (3, 16, 16)) and found.shape[0] == 2
    for frame in range(3):
        seen = network.look(clips[:, :, frame], 2)
        maps = found[:, :, frame].flatten(2).transpose(1, 2)
        torch.testing.assert_close(maps, seen.patches)


def test_normed_features_have_zero_mean_and_unit_variance():
    found = FeatureSpace(FeaturesConfig(norm=True), Shape(3, (32, 32)))(torch.rand(2, 3, 32, 32))
    torch.testing.assert_close(found.mean(1), torch.zeros_like(found[:, 0]), atol=1e-5, rtol=0)
    deviation = found.std(1, correction=0)
    torch.testing.assert_close(deviation, torch.ones_like(deviation), atol=1e-2, rtol=0)


def test_the_network_is_recorded_and_not_saved():
    encoder = tiny_tree()["encoder"] | {"patches": {"size": 1}}
    tokenizer = tiny(input_space={"kind": "features"}, encoder=encoder)
    assert not any(key.startswith("input_space") for key in tokenizer.state_dict())
    record = tokenizer.frozen_record()
    assert list(record) == ["vistok-cnn"] and len(record["vistok-cnn"]) == 64


def test_nothing_leads_back_to_pixels(fails):
    tree = tiny_tree(output_space={"kind": "features"})
    with fails(ValueError, "output_space.kind=features: nothing leads back from it to pixels"):
        Tokenizer(validate(TokenizerConfig, tree))
    space = FeatureSpace(FeaturesConfig(), Shape(3, (32, 32)))
    with fails(ValueError, "'features' without a decoder is an input space only; set"):
        space.inverse(torch.rand(1, 4, 2, 2))


def test_a_network_is_named_or_a_config():
    assert FeaturesConfig(network="clip").network.kind == "clip"
    with pytest.raises(ValueError, match="'no-net' is no vision network"):
        validate(FeaturesConfig, {"network": "no-net"})
