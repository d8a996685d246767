"""Presets of feature networks: against the libraries' classes, in every layout of their files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from tests.support.tiny_presets import random_state, shrink, write
from vistok.frozen import FEATURES, BadWeights, MissingWeights, feature_network
from vistok.frozen.files import FOLDER
from vistok.frozen.pixels import PREPARE
from vistok.frozen.presets import PRESETS

transformers = pytest.importorskip("transformers")

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALVES = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
STATISTICS = {"mae-fdr": IMAGENET, "clip-fdr": CLIP, "siglip-fdr": HALVES}
SMALL = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16}


def pixels(side: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(side)
    return torch.randint(0, 256, (2, 3, side, side), generator=generator, dtype=torch.uint8)


def normalized(x, statistics):
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in statistics)
    return (x - mean) / std


def seen(name: str, x: torch.Tensor) -> torch.Tensor:
    """What the network of a preset gets, in plain torch."""
    preset = PRESETS[name]
    statistics = {"ImageNet": IMAGENET, "CLIP": CLIP, "0.5": HALVES}[preset.statistics]
    return normalized(PREPARE[preset.prepare](x, preset.side), statistics)


def shaken(model: torch.nn.Module) -> torch.nn.Module:
    """Random numbers everywhere: layers that begin as zeros or ones would hide mistakes."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.3).add_("norm" in name and name.endswith("weight"))
    return model.eval()


def library(name: str, side: int | None = None) -> torch.nn.Module:
    """The library's class of a preset's tiny network; DINOv2 at the grid that the preset sees."""
    if name.startswith("dinov2"):
        config = transformers.Dinov2Config(**SMALL, mlp_ratio=2, image_size=side, patch_size=14)
        return shaken(transformers.Dinov2Model(config))
    sizes = {**SMALL, "intermediate_size": 32, "patch_size": 14}
    if name.startswith("clip-cmmd"):
        config = transformers.CLIPVisionConfig(**sizes, image_size=336, projection_dim=6)
        return shaken(transformers.CLIPVisionModelWithProjection(config))
    if name == "clip-fdr":
        config = transformers.CLIPVisionConfig(**sizes, image_size=side, hidden_act="gelu")
        return shaken(transformers.CLIPVisionModel(config))
    sizes |= {"patch_size": 16, "image_size": side}
    if name == "mae-fdr":
        config = transformers.ViTMAEConfig(**sizes, mask_ratio=0.0, layer_norm_eps=1e-6)
        return shaken(transformers.ViTMAEModel(config))
    return shaken(transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**sizes)))


def features_of(model, x: torch.Tensor) -> torch.Tensor:
    """What a preset takes of a library model's output, for normalized images."""
    with torch.no_grad():
        out = model(pixel_values=x)
    if isinstance(model, transformers.ViTMAEModel):
        return out.last_hidden_state[:, 0]
    if hasattr(out, "image_embeds"):
        return out.image_embeds / out.image_embeds.norm(dim=1, keepdim=True)
    return out.pooler_output


@pytest.mark.parametrize("name", ["clip-cmmd", "clip-cmmd-tensor"])
def test_cmmd_is_the_librarys_unit_embedding(name, monkeypatch, tmp_path):
    shrink(monkeypatch, name)
    model = library(name)
    model.save_pretrained(tmp_path)
    ours = feature_network(name, tmp_path)
    for side in (64, 400):
        wanted = features_of(model, seen(name, pixels(side)))
        torch.testing.assert_close(ours(pixels(side)), wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours(pixels()).norm(dim=1), torch.ones(2))
    assert ours.dim == 6 and ours.measures == {"cmmd"}


@pytest.mark.parametrize("name", ["mae-fdr", "clip-fdr", "siglip-fdr"])
def test_transformers_classes_at_their_own_side(name, monkeypatch, tmp_path):
    patch = 14 if name == "clip-fdr" else 16
    preset = shrink(monkeypatch, name, native=4 * patch, side=4 * patch)
    model = library(name, preset.side)
    model.save_pretrained(tmp_path)
    ours = feature_network(name, tmp_path)
    x = seen(name, pixels(80))
    torch.testing.assert_close(ours.seen(pixels(80)), x)
    torch.testing.assert_close(ours(pixels(80)), features_of(model, x), rtol=1e-4, atol=1e-5)
    assert ours.measures == {"fid", "kid", "prdc"}


def table_at(table: torch.Tensor, grid: int, **how) -> torch.Tensor:
    """A position table [1, 1 + 37 * 37, D] at another grid, as a program does it."""
    maps = table[:, 1:].view(1, 37, 37, -1).permute(0, 3, 1, 2)
    maps = F.interpolate(maps, mode="bicubic", **how)
    assert maps.shape[-1] == grid
    return torch.cat([table[:, :1], maps.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


@pytest.mark.parametrize("name", ["dinov2-dgm-eval", "dinov2-fdr"])
def test_dinov2_has_the_programs_positions_and_padding(name, monkeypatch, tmp_path):
    preset = shrink(monkeypatch, name)
    write(preset, tmp_path / "model.safetensors")
    ours = feature_network(name, tmp_path)
    state = random_state(preset)
    x = seen(name, pixels(100))
    if name == "dinov2-fdr":
        grid, x = 19, F.pad(x, (0, 10, 0, 10))
        table = table_at(state["pos_embed"], 19, size=(19, 19), antialias=True)
    else:
        grid = 16
        table = table_at(state["pos_embed"], 16, scale_factor=(16.1 / 37, 16.1 / 37))
        other = table_at(state["pos_embed"], 16, size=(16, 16), antialias=True)
        assert (table - other).abs().max() > 0.05  # the rules are not the same
    model = library(name, 14 * grid)
    model.load_state_dict(in_transformers(state, table), strict=True)
    torch.testing.assert_close(ours(pixels(100)), features_of(model, x), rtol=1e-4, atol=1e-5)


def in_transformers(state, table=None) -> dict[str, torch.Tensor]:
    """A state of DINOv2 in the names of the library's module."""
    table = state["pos_embed"] if table is None else table
    theirs = {"embeddings.cls_token": state["cls_token"], "embeddings.position_embeddings": table}
    theirs["embeddings.mask_token"] = torch.zeros(1, 16)
    for end in ("weight", "bias"):
        at = "embeddings.patch_embeddings.projection"
        theirs[f"{at}.{end}"] = state[f"patch_embed.proj.{end}"]
        theirs[f"layernorm.{end}"] = state[f"norm.{end}"]
        for i in range(2):
            mine, block = f"blocks.{i}", f"encoder.layer.{i}"
            for part, one in zip("qkv", state[f"{mine}.attn.qkv.{end}"].chunk(3), strict=True):
                theirs[f"{block}.attention.{part}_proj.{end}"] = one
            theirs[f"{block}.attention.o_proj.{end}"] = state[f"{mine}.attn.proj.{end}"]
            for layer in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                theirs[f"{block}.{layer}.{end}"] = state[f"{mine}.{layer}.{end}"]
            for j in (1, 2):
                theirs[f"{block}.layer_scale{j}.lambda1"] = state[f"{mine}.ls{j}.gamma"]
    return theirs


def test_convnext_is_the_librarys_mean_map(monkeypatch, tmp_path):
    shrink(monkeypatch, "convnext-fdr")
    sizes = {"hidden_sizes": [4, 8, 8, 16], "depths": [1, 1, 2, 1], "num_labels": 5}
    whole = transformers.ConvNextV2ForImageClassification(transformers.ConvNextV2Config(**sizes))
    shaken(whole).save_pretrained(tmp_path)
    ours = feature_network("convnext-fdr", tmp_path)
    with torch.no_grad():
        out = whole.convnextv2(pixel_values=seen("convnext-fdr", pixels(100)))
    wanted = out.last_hidden_state.mean((2, 3))
    torch.testing.assert_close(ours(pixels(100)), wanted, rtol=1e-4, atol=1e-5)


def official_convnext(state) -> dict[str, torch.Tensor]:
    """timm's names -> those of ConvNeXt V2's own files, with a classifier."""
    theirs = {"norm.weight": torch.ones(16), "head.weight": torch.ones(5, 16)}
    for key, value in state.items():
        key = key.replace("stem.", "downsample_layers.0.").replace(".blocks.", ".")
        if ".downsample." in key:
            key = key.replace("stages.", "downsample_layers.").replace(".downsample.", ".")
        if ".grn." in key:
            value = value[None, None, None]
            key = key.replace("grn.weight", "grn.gamma").replace("grn.bias", "grn.beta")
        for mine, own in (("mlp.fc", "pwconv"), ("mlp.grn", "grn"), ("conv_dw", "dwconv")):
            key = key.replace(mine, own)
        theirs[key] = value
    return theirs


def test_layouts_of_one_network_make_one_network(monkeypatch, tmp_path):
    """Official, nested, timm's with a classifier, and that of transformers: equal in every bit."""
    preset = shrink(monkeypatch, "convnext-fdr")
    state = random_state(preset)
    torch.save({"model": official_convnext(state)}, tmp_path / "official.pt")
    save_file(state | {"head.fc.weight": torch.ones(5, 16)}, tmp_path / "timm.safetensors")
    one, two = (feature_network("convnext-fdr", tmp_path / f"{n}") for n in
                ("official.pt", "timm.safetensors"))  # fmt: skip
    assert one.sha256 == two.sha256 and torch.equal(one(pixels()), two(pixels()))

    preset = shrink(monkeypatch, "mae-fdr")
    state = random_state(preset)
    decoder = {"decoder_embed.weight": torch.ones(2, 2), "mask_token": torch.zeros(1, 1, 2)}
    torch.save({"model": state | decoder}, tmp_path / "mae_pretrain_vit_large.pth")
    save_file(state, tmp_path / "model.safetensors")
    one = feature_network("mae-fdr", tmp_path)  # the official name is looked for first
    two = feature_network("mae-fdr", tmp_path / "model.safetensors")
    assert one.sha256 == two.sha256 and torch.equal(one(pixels()), two(pixels()))

    preset = shrink(monkeypatch, "dinov2-dgm-eval")
    state = random_state(preset)
    torch.save(state | {"mask_token": torch.zeros(1, 16)}, tmp_path / "hub.pth")
    save_file(in_transformers(state), tmp_path / "library.safetensors")
    files = (tmp_path / "hub.pth", tmp_path / "library.safetensors")
    one, two = (feature_network("dinov2-dgm-eval", file) for file in files)
    assert one.sha256 == two.sha256 and torch.equal(one(pixels()), two(pixels()))

    preset = shrink(monkeypatch, "clip-cmmd")
    state = random_state(preset)
    bias = {"head.bias": torch.zeros(6)}  # timm's linear layer
    save_file(state, tmp_path / "a.safetensors")
    save_file(state | bias, tmp_path / "b.safetensors")
    one, two = (feature_network("clip-cmmd", tmp_path / f"{n}.safetensors") for n in "ab")
    assert one.sha256 == two.sha256


def test_whole_models_of_images_and_texts_are_read(monkeypatch, tmp_path):
    vision = {**SMALL, "intermediate_size": 32, "image_size": 336, "patch_size": 14}
    text = {**SMALL, "intermediate_size": 32, "vocab_size": 20, "max_position_embeddings": 8}
    text |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    shrink(monkeypatch, "clip-cmmd")
    config = transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=6)
    model = shaken(transformers.CLIPModel(config))
    model.save_pretrained(tmp_path / "clip")
    with torch.no_grad():
        x = model.vision_model(seen("clip-cmmd", pixels())).pooler_output
        wanted = F.normalize(model.visual_projection(x), dim=1)
    ours = feature_network("clip-cmmd", tmp_path / "clip")
    torch.testing.assert_close(ours(pixels()), wanted, rtol=1e-5, atol=1e-6)

    shrink(monkeypatch, "siglip-fdr", native=64, side=64)
    vision |= {"image_size": 64, "patch_size": 16}
    config = transformers.SiglipConfig(vision_config=vision, text_config=text)
    model = shaken(transformers.SiglipModel(config))
    model.save_pretrained(tmp_path / "siglip")
    with torch.no_grad():
        wanted = model.vision_model(seen("siglip-fdr", pixels())).pooler_output
    ours = feature_network("siglip-fdr", tmp_path / "siglip")
    torch.testing.assert_close(ours(pixels()), wanted, rtol=1e-4, atol=1e-5)


def test_wrong_files_name_file_and_key(monkeypatch, tmp_path, fails):
    preset = shrink(monkeypatch, "dinov2-fdr")
    state, path = random_state(preset), tmp_path / "a.safetensors"

    def opened(changed):
        save_file(changed, path)
        feature_network("dinov2-fdr", path)

    with fails(BadWeights, rf"dinov2-fdr: {path}: .*lacks 'blocks.1.ls2.gamma'"):
        opened({key: value for key, value in state.items() if key != "blocks.1.ls2.gamma"})
    with fails(BadWeights, "a.safetensors", "unknown key 'register_tokens'"):
        opened(state | {"register_tokens": torch.zeros(1, 4, 16)})
    with fails(BadWeights, "a.safetensors", r"'pos_embed' has shape \(1, 257, 16\)", "1370"):
        opened(state | {"pos_embed": torch.zeros(1, 257, 16)})  # saved at another size
    with fails(BadWeights, "'norm.bias'", "not finite"):
        opened(state | {"norm.bias": torch.full((16,), torch.nan)})
    path.write_bytes(b"junk")
    with fails(BadWeights, "dinov2-fdr: .*a.safetensors"):
        feature_network("dinov2-fdr", path)


def test_another_network_is_not_taken_for_the_presets(monkeypatch, tmp_path, fails):
    """CLIP ViT-B/32 is no CMMD, whatever its class."""
    shrink(monkeypatch, "clip-cmmd")
    sizes = {**SMALL, "intermediate_size": 32, "patch_size": 32, "image_size": 224}
    config = transformers.CLIPVisionConfig(**sizes, projection_dim=6)
    transformers.CLIPVisionModelWithProjection(config).save_pretrained(tmp_path)
    with fails(BadWeights, "clip-cmmd: .*model.safetensors: '.*' has shape"):
        feature_network("clip-cmmd", tmp_path)
    preset = PRESETS["clip-cmmd"]
    save_file(random_state(preset) | {"head.bias": torch.ones(6)}, tmp_path / "b.safetensors")
    with fails(BadWeights, "unknown key 'head.bias'"):
        feature_network("clip-cmmd", tmp_path / "b.safetensors")


@pytest.mark.parametrize("name", PRESETS)
def test_missing_weights_say_what_to_fetch(name, monkeypatch, tmp_path, fails, offline):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with fails(MissingWeights, f"{name}: cannot download", "https://", FOLDER):
        feature_network(name)
    with fails(MissingWeights, f"{name}: no weights at .*none.pth", f"weights.{name}=FILE"):
        feature_network(name, tmp_path / "none.pth")


@pytest.mark.parametrize("name", PRESETS)
def test_weights_are_found_by_every_name(name, monkeypatch, tmp_path):
    preset = shrink(monkeypatch, name)
    state = random_state(preset)
    made = []
    for number, file in enumerate(preset.files.names):
        folder = tmp_path / str(number)
        (folder / file).parent.mkdir(parents=True)
        if file.endswith(".safetensors"):
            save_file(state, folder / file)
        else:
            torch.save(state, folder / file)
        monkeypatch.setenv(FOLDER, str(folder))
        made.append(feature_network(name).sha256)
    assert len(made) >= 2 and len(set(made)) == 1


def test_every_network_has_a_name_and_a_treatment_of_its_own(monkeypatch, tmp_path):
    told = []
    for name in PRESETS:
        path = write(shrink(monkeypatch, name), tmp_path / f"{name}.safetensors")
        network = feature_network(name, path)
        assert network.name == name and len(network.sha256) == 64
        assert not any(p.requires_grad for p in network.train().parameters())
        assert network(pixels(40)).shape == (2, network.dim)
        with pytest.raises(ValueError, match="expected uint8"):
            network(pixels(40).float())
        told.append((network.preprocess, network.dim))
    described = {name: PRESETS[name].described for name in PRESETS}
    assert described["dinov2-dgm-eval"] != described["dinov2-fdr"]
    assert described["clip-cmmd"] != described["clip-cmmd-tensor"]
    assert "zeros to 266" in described["clip-fdr"] and "8 bits" in described["clip-cmmd"]
    assert set(PRESETS) <= set(FEATURES)


def test_sizes_of_the_published_networks():
    """Millions of parameters, as their authors and timm count them, without classifiers."""
    millions = {"dinov2-dgm-eval": 304.37, "mae-fdr": 303.30, "clip-fdr": 303.18}
    millions |= {"siglip-fdr": 427.89, "convnext-fdr": 87.69, "clip-cmmd": 304.29}
    for name, expected in millions.items():
        with torch.device("meta"):
            network = feature_network(name)
        count = sum(p.numel() for p in network.parameters())
        assert count / 1e6 == pytest.approx(expected, abs=0.01)


def test_the_page_names_every_network_its_files_and_its_pixels():
    page = (Path(__file__).parents[2] / "docs/ideas/feature-networks.md").read_text("utf-8")
    for name in FEATURES:
        row, *_ = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        if name in PRESETS:
            preset = PRESETS[name]
            assert preset.statistics in row and str(preset.shape.dim) in row
            assert str(preset.side) in row and ("Pillow" in row) == preset.prepare.startswith("pil")
            assert all(f"`{file}`" in page for file in preset.files.names)
