"""Vision networks that tokenizers are aligned with: against the library's own outputs."""

from __future__ import annotations

import pytest
import torch

from vistok.config import validate_part
from vistok.config.registry import build
from vistok.frozen import MissingWeights, feature_network
from vistok.frozen.files import FOLDER
from vistok.frozen.vision import NAMES, named

SMALL = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16}
SMALL |= {"intermediate_size": 32, "image_size": 16, "patch_size": 8}


def saved(kind: str, folder) -> torch.nn.Module:
    transformers = pytest.importorskip("transformers")
    name = {"clip": "CLIPVision", "siglip": "SiglipVision"}[kind]
    config = getattr(transformers, f"{name}Config")(**SMALL)
    model = getattr(transformers, f"{name}Model")(config).eval()
    model.save_pretrained(folder)
    return model


def opened(kind: str, **options):
    return build(validate_part("vision", {"kind": kind, **options}))


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_towers_give_pooled_and_patch_features(kind, tmp_path):
    theirs = saved(kind, tmp_path)
    ours = opened(kind, weights=str(tmp_path))
    mean, std = ours.mean, ours.std
    x = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        expected = theirs((x - mean) / std, output_hidden_states=True)
    seen, deep = ours.look(x), ours.look(x, depth=1)
    torch.testing.assert_close(seen.pooled, expected.pooler_output)
    assert seen.grid == (2, 2) == deep.grid and seen.patches.shape == (2, 4, 16)
    first = expected.hidden_states[1]
    if kind == "clip":
        patches = theirs.post_layernorm(expected.last_hidden_state)[:, 1:]
        torch.testing.assert_close(seen.patches, patches)
        torch.testing.assert_close(deep.pooled, first[:, 0])
        torch.testing.assert_close(deep.patches, first[:, 1:])
    else:
        torch.testing.assert_close(seen.patches, expected.last_hidden_state)
        torch.testing.assert_close(deep.pooled, first.mean(1))
    larger = opened(kind, weights=str(tmp_path), image_size=32)
    assert larger.look(x).patches.shape == (2, 16, 16) and larger.sizes() == (16, 16)
    assert len(ours.sha256) == 64 and not any(p.requires_grad for p in ours.parameters())
    with pytest.raises(ValueError, match=r"depth=3; expected 1\.\.2, or null"):
        ours.look(x, depth=3)
    with pytest.raises(ValueError, match="image_size=20 is no multiple of its patches' 8"):
        opened(kind, weights=str(tmp_path), image_size=20)


def test_clip_may_see_the_statistics_of_imagenet(tmp_path):
    saved("clip", tmp_path)
    other = opened("clip", weights=str(tmp_path), statistics="imagenet")
    assert other.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert "ImageNet" in other.preprocess


def test_the_embedded_network_gives_its_stages():
    ours, whole = opened("vistok-cnn"), feature_network("vistok-cnn")
    pixels = torch.randint(0, 256, (2, 3, 40, 32), dtype=torch.uint8)
    seen = ours.look(pixels / 255)
    torch.testing.assert_close(seen.pooled, whole(pixels), rtol=1e-4, atol=1e-5)
    assert seen.grid == (4, 4) and seen.patches.shape == (2, 16, ours.sizes()[0])
    for depth, side in ((1, 32), (2, 16), (3, 8), (4, 4)):
        stage = ours.look(pixels / 255, depth)
        assert stage.grid == (side, side) and stage.pooled.shape[1] == ours.sizes(depth)[1]
        torch.testing.assert_close(stage.pooled, stage.patches.mean(1))
    torch.testing.assert_close(ours.look(pixels / 255, 4).patches, seen.patches)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_built_without_weights(name):
    pytest.importorskip("transformers")
    with torch.device("meta"):
        network = build(validate_part("vision", named(name)))
    assert all(p.is_meta and not p.requires_grad for p in network.parameters())
    assert network.sha256 == "" and network.sizes()[0] > 0


def test_unknown_and_missing(fails, tmp_path, monkeypatch):
    monkeypatch.delenv(FOLDER, raising=False)
    with fails(ValueError, "'dinov3' is no vision network; expected one of dino-s16,"):
        named("dinov3")
    with fails(MissingWeights, "siglip: no weights at", "siglip-base-patch16-224"):
        opened("siglip", weights=str(tmp_path))


def test_clip_projects_its_patches(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPVisionConfig(**SMALL, projection_dim=6)
    theirs = transformers.CLIPVisionModelWithProjection(config).eval()
    theirs.save_pretrained(tmp_path)
    ours = opened("clip", weights=str(tmp_path), projected=True)
    x = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        states = theirs((x - ours.mean) / ours.std).last_hidden_state[:, 1:]
        expected = theirs.visual_projection(theirs.vision_model.post_layernorm(states))
    torch.testing.assert_close(ours.look(x).patches, expected)
    assert ours.sizes() == (6, 16) and ours.sizes(1) == (16, 16)
