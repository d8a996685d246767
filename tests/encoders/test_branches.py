"""Branches side by side, and towers that hold the weights of their networks."""

import pytest
import torch

from vistok.config import ConfigError
from vistok.config.registry import build
from vistok.core.shapes import Shape
from vistok.encoders.branches import BranchConfig, BranchesConfig
from vistok.encoders.clusters import ClustersConfig
from vistok.encoders.vision_tower import TowerEncoderConfig
from vistok.layers.mbconv import MbConvConfig
from vistok.layers.transformer import TransformerConfig
from vistok.layers.vision_tower import VisionTower, VisionTowerConfig, resized_table
from vistok.train.tasks.tower_init import take, tower_names

INNER = {"width": 16, "depth": 2, "heads": 2, "mlp_ratio": 2.0}
LIBRARY = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
LIBRARY |= {"num_attention_heads": 2, "patch_size": 4, "image_size": 18}


def test_a_tower_is_clips():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    network = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**LIBRARY)).eval()
    inner = TransformerConfig(**INNER, mlp="quick_gelu", norm_eps=1e-5)
    tower = VisionTower(
        VisionTowerConfig(patch=4, positions=4, transformer=inner), Shape(3, (18, 18))
    )
    take(tower, tower_names(network.state_dict()), "clip")
    x = torch.randn(2, 3, 18, 18)
    states = network(pixel_values=x).last_hidden_state
    wanted = getattr(network, "vision_model", network).post_layernorm(states)[:, 1:]
    torch.testing.assert_close(tower(x), wanted, atol=1e-5, rtol=0)


def test_a_tower_is_siglips_without_its_last_block():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.SiglipVisionConfig(**LIBRARY | {"num_hidden_layers": 3})
    network = transformers.SiglipVisionModel(config).eval()
    inner = TransformerConfig(**INNER, mlp="gelu_tanh", norm_out=False)
    options = {"patch": 4, "patch_bias": True, "class_token": False, "norm_in": False}
    tower = VisionTower(
        VisionTowerConfig(positions=4, transformer=inner, **options), Shape(3, (18, 18))
    )
    take(tower, tower_names(network.state_dict()), "siglip")
    x = torch.randn(2, 3, 18, 18)
    seen = network(pixel_values=x, output_hidden_states=True).hidden_states
    torch.testing.assert_close(tower(x), seen[-2], atol=1e-5, rtol=0)


def test_a_stem_divides_by_sixteen():
    inner = TransformerConfig(**INNER, mlp="geglu", norm_out=False)
    options = {"positions": None, "class_token": False, "norm_in": False, "mlp_norm": True}
    config = VisionTowerConfig(stem=MbConvConfig.tiny(), transformer=inner, **options)
    tower = VisionTower(config, Shape(3, (48, 32)))
    assert tower.grid == (3, 2) and tower(torch.randn(1, 3, 48, 32)).shape == (1, 6, 16)


def test_a_table_is_resized_for_another_grid():
    table = torch.randn(1 + 9, 5)
    assert resized_table(table, (3, 3), 1) is table
    other = resized_table(table, (4, 4), 1)
    assert other.shape == (17, 5) and torch.equal(other[0], table[0])
    flat = resized_table(torch.ones(9, 2), (5, 5), 0)
    torch.testing.assert_close(flat, torch.ones(25, 2))


def test_branches_read_the_image_each_in_its_way():
    tower = {"tower": {"patch": 7, "positions": 4, "transformer": {**INNER, "depth": 1}}}
    conv = {"channels": 8, "channel_mult": [1, 1], "blocks": 1, "norm_groups": 4}
    config = BranchesConfig(
        branches=(
            {"encoder": {"kind": "vision_tower", **tower}, "dim": 5, "statistics": "half"},
            {"encoder": {"kind": "cnn", "conv": conv}, "image_size": 8},
        )
    )
    encoder = build(config, Shape(3, (30, 30)), 9)
    x = torch.rand(2, 3, 30, 30) * 2 - 1
    latents = encoder(x)
    assert latents.values.shape == (2, 16, 9) and latents.grids == ((4, 4),)
    assert latents.features["0.cells"].shape == (2, 16, 16)
    semantic = encoder.branches[0]
    torch.testing.assert_close(semantic.normalized(x), x)  # half is the space's own
    assert torch.equal(semantic.encoder(semantic.normalized(x)).values, latents.values[..., :5])
    clip = build(BranchConfig(encoder=TowerEncoderConfig.tiny(), dim=1, statistics="clip").encoder,
                 Shape(3, (8, 8)), 1)  # fmt: skip
    assert clip.grids == ((2, 2),)
    with pytest.raises(ConfigError, match=r"dim=\[5, None\], and the quantizer reads 5 channels"):
        build(config, Shape(3, (30, 30)), 5)


def test_a_branch_of_any_number_of_latents_is_refused():
    groups = BranchConfig(encoder=ClustersConfig.tiny())
    config = BranchesConfig(branches=(groups, groups))
    with pytest.raises(ValueError, match="kind=clusters of branch 0 makes another number"):
        build(config, Shape(3, (8, 8)), 8)


def test_a_stem_has_no_bias_of_patches():
    with pytest.raises(ValueError, match="patch_bias=true with a stem"):
        VisionTowerConfig(stem=MbConvConfig.tiny(), patch_bias=True)
