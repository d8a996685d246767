"""Frozen ViTs: official layouts, other sizes, and the errors of wrong files."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from vistok.config import validate
from vistok.frozen import BadWeights, MissingWeights
from vistok.frozen.files import FOLDER
from vistok.frozen.vit import RELEASES, FrozenViT, FrozenViTConfig
from vistok.layers.mlp import GeluMlp
from vistok.storage.weights import sha256

SMALL = {"width": 16, "depth": 2, "heads": 2, "image_size": 28, "patch": 14}


def official(gated: bool = False, scale: bool = True) -> dict[str, torch.Tensor]:
    """A state in the layout of DINOv2's files (gated: its largest), without layer scale DINO's."""
    torch.manual_seed(0)
    width, hidden = 16, 64 if not gated else 40
    shapes = {"cls_token": (1, 1, width), "pos_embed": (1, 5, width), "norm.weight": (width,)}
    shapes |= {"norm.bias": (width,), "patch_embed.proj.weight": (width, 3, 14, 14)}
    shapes |= {"patch_embed.proj.bias": (width,)}
    layers = {"norm1": (width,), "norm2": (width,), "attn.qkv": (3 * width, width)}
    layers |= {"attn.proj": (width, width)}
    up, down = ("w12", "w3") if gated else ("fc1", "fc2")
    layers |= {f"mlp.{up}": (hidden * (1 + gated), width), f"mlp.{down}": (width, hidden)}
    for i in range(2):
        for layer, shape in layers.items():
            shapes[f"blocks.{i}.{layer}.weight"] = shape
            shapes[f"blocks.{i}.{layer}.bias"] = shape[:1]
        if scale:
            shapes |= {f"blocks.{i}.ls{j}.gamma": (width,) for j in (1, 2)}
    return {name: torch.randn(shape) * 0.3 for name, shape in shapes.items()}


def opened(state, path, **options) -> FrozenViT:
    save_file(state, path)
    tree = {"network": "vit", "weights": str(path), **SMALL, **options}
    return FrozenViT(validate(FrozenViTConfig, tree))


def by_formula(state, x, gelu="none"):
    """DINOv2 written out: x [B, 3, H, W], normalized -> states behind the final norm."""
    f = torch.nn.functional
    norm = lambda y, name: f.layer_norm(
        y, (16,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-6
    )
    linear = lambda y, name: f.linear(y, state[f"{name}.weight"], state[f"{name}.bias"])
    kernel, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    patches = f.conv2d(x, kernel, bias, stride=14).flatten(2).transpose(1, 2)
    y = torch.cat([state["cls_token"].expand(len(x), -1, -1), patches], 1) + state["pos_embed"]
    for i in range(2):
        at = f"blocks.{i}"
        gain = lambda j, at=at: state.get(f"{at}.ls{j}.gamma", torch.ones(16))
        q, k, v = (
            part.reshape(len(x), 5, 2, 8).transpose(1, 2)
            for part in linear(norm(y, f"{at}.norm1"), f"{at}.attn.qkv").chunk(3, -1)
        )
        mixed = ((q @ k.mT) * 8**-0.5).softmax(-1) @ v
        y = y + gain(1) * linear(mixed.transpose(1, 2).reshape(len(x), 5, 16), f"{at}.attn.proj")
        z = norm(y, f"{at}.norm2")
        if f"{at}.mlp.w12.weight" in state:
            a, b = linear(z, f"{at}.mlp.w12").chunk(2, -1)
            z = linear(f.silu(a) * b, f"{at}.mlp.w3")
        else:
            z = linear(f.gelu(linear(z, f"{at}.mlp.fc1"), approximate=gelu), f"{at}.mlp.fc2")
        y = y + gain(2) * z
    return norm(y, "norm")


@pytest.mark.parametrize("kind", ["dinov2", "dino", "gated", "tanh"])
def test_the_official_layout_by_its_formula(kind, tmp_path):
    state = official(gated=kind == "gated", scale=kind != "dino")
    options = {
        "dino": {"layer_scale": False},
        "gated": {"mlp": "swiglu", "mlp_ratio": 40 / 16},
        "tanh": {"mlp": "gelu_tanh"},
    }.get(kind, {})
    inert = {"mask_token": torch.zeros(1, 16)}
    network = opened(state | inert, tmp_path / "a.safetensors", **options)
    x = torch.rand(2, 3, 28, 28)
    expected = by_formula(state, network.seen(x), "tanh" if kind == "tanh" else "none")
    pooled, patches = network(x)
    torch.testing.assert_close(torch.cat([pooled[:, None], patches], 1), expected)
    assert network.sha256 == sha256(tmp_path / "a.safetensors")
    assert not any(p.requires_grad for p in network.train().parameters())
    seen = network.look(x, depth=1)
    assert seen.grid == (2, 2) and torch.equal(
        seen.patches, network.tapped(network.seen(x), (1,))[1][1][:, 1:]
    )
    with pytest.raises(ValueError, match=r"depth=3; expected 1\.\.2"):
        network.look(x, depth=3)


@pytest.mark.parametrize("gated", [False, True])
def test_the_layout_of_transformers(gated, tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 24}
    config = transformers.Dinov2Config(**sizes, image_size=28, patch_size=14, use_swiglu_ffn=gated)
    theirs = transformers.Dinov2Model(config).eval()
    theirs.save_pretrained(tmp_path)
    tree = SMALL | {"network": "vit", "weights": str(tmp_path), "width": 24}
    tree |= {"mlp": "swiglu", "mlp_ratio": 64 / 24} if gated else {}
    network = FrozenViT(validate(FrozenViTConfig, tree))
    x = torch.rand(2, 3, 28, 28)
    with torch.no_grad():
        expected = theirs(network.seen(x)).last_hidden_state
    torch.testing.assert_close(torch.cat([network(x)[0][:, None], network(x)[1]], 1), expected)


def test_other_image_and_patch_sizes(tmp_path):
    state = official()
    network = opened(state, tmp_path / "a.safetensors", image_size=24, patch=8)
    assert network.grid == (3, 3) and network.patch_embed.proj.weight.shape[-2:] == (8, 8)
    x = torch.rand(2, 3, 50, 40)
    assert network(x)[1].shape == (2, 9, 16)
    shallow = opened(state, tmp_path / "a.safetensors", depth=1)
    deep = opened(state, tmp_path / "a.safetensors")
    y = deep.seen(x)
    torch.testing.assert_close(shallow.tapped(y, (1,))[1][1], deep.tapped(y, (1,))[1][1])
    with pytest.raises(ValueError, match="image_size=28 is no multiple of patch=8"):
        FrozenViTConfig(image_size=28, patch=8)


def test_zeroed_key_biases_leave_the_features_alone(tmp_path):
    plain = opened(official(), tmp_path / "a.safetensors")
    zeroed = opened(official(), tmp_path / "a.safetensors", zero_key_bias=True)
    bias = zeroed.state_dict()["transformer.blocks.1.attention.qkv.bias"]
    assert not bias[16:32].any() and bias[:16].all() and bias[32:].all()
    x = torch.rand(2, 3, 28, 28)
    torch.testing.assert_close(zeroed(x)[1], plain(x)[1])


def test_random_numbers_are_the_same_everywhere():
    torch.manual_seed(1)
    first = FrozenViT(FrozenViTConfig.tiny())
    torch.manual_seed(2)
    second = FrozenViT(FrozenViTConfig.tiny())
    assert first.sha256 == second.sha256 and len(first.sha256) == 64
    features = first(torch.rand(8, 3, 16, 16))[0]
    assert features.isfinite().all() and features.std(0).mean() > 0.05
    with pytest.raises(ValueError, match="network=vit needs `weights`"):
        FrozenViTConfig(network="vit")


def test_sizes_of_the_published_networks():
    millions = {"dino-s16": 21.7, "dino-b16": 85.8, "dinov2-s": 21.6, "dinov2-b": 85.7}
    millions |= {"dinov2-l": 303.2, "dinov2-g": 1134.8}
    for name, expected in millions.items():
        with torch.device("meta"):
            network = FrozenViT(FrozenViTConfig(network=name))
        count = sum(p.numel() for p in network.parameters())
        assert count / 1e6 == pytest.approx(expected, abs=0.06) and network.sha256 == ""
    mlp = network.transformer.blocks[0].mlp
    assert mlp.gate.out_features == 4096 and not isinstance(mlp, GeluMlp)


def test_weights_are_found_by_name(tmp_path, monkeypatch, offline):
    file = RELEASES["dino-s16"].source("dino-s16").file
    torch.save({"a": torch.zeros(())}, tmp_path / file)
    monkeypatch.setenv(FOLDER, str(tmp_path))
    with pytest.raises(BadWeights, match="dino-s16: the weight file lacks"):
        FrozenViT(FrozenViTConfig(network="dino-s16"))


def test_wrong_and_missing_files_are_one_line(tmp_path, fails, offline):
    words = ("dinov2-b: cannot download", "dinov2_vitb14_pretrain.pth", FOLDER)
    with fails(MissingWeights, *words):
        FrozenViT(FrozenViTConfig())
    with fails(MissingWeights, "vit: no weights at"):
        FrozenViT(FrozenViTConfig(network="vit", weights=str(tmp_path / "none.pth")))
    state = official()
    del state["blocks.1.norm2.bias"]
    with fails(BadWeights, "lacks 'transformer.blocks.1.norm_mlp.bias'"):
        opened(state, tmp_path / "a.safetensors")
    with fails(BadWeights, "has the unknown key 'register_tokens'"):
        opened(official() | {"register_tokens": torch.zeros(1, 4, 16)}, tmp_path / "a.safetensors")
    with fails(BadWeights, "'transformer.norm.bias' of the weight file has values that are not"):
        opened(official() | {"norm.bias": torch.full((16,), torch.nan)}, tmp_path / "a.safetensors")
    table = official() | {"pos_embed": torch.zeros(1, 7, 16)}
    with fails(BadWeights, r"'positions.table' has shape \(1, 7, 16\)"):
        opened(table, tmp_path / "a.safetensors")
    wide = official() | {"norm.weight": torch.ones(17)}
    with fails(BadWeights, r"'transformer.norm.weight' has shape \(17,\)"):
        opened(wide, tmp_path / "a.safetensors")
