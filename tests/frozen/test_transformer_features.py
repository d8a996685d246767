"""DINOv2, CLIP and VideoMAE: tiny random models of the library's own classes, saved as it saves."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from vistok.frozen import BadWeights, MissingWeights, feature_network, video_network
from vistok.frozen.files import FOLDER
from vistok.storage.weights import sha256

transformers = pytest.importorskip("transformers")

SMALL = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16}
NAMES = ["dinov2", "clip", "videomae"]


def _model(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    if name == "dinov2":
        return transformers.Dinov2Model(
            transformers.Dinov2Config(**SMALL, image_size=28, patch_size=14)
        )
    if name == "clip":
        shape = {**SMALL, "intermediate_size": 32, "image_size": 16, "patch_size": 8}
        vision = transformers.CLIPVisionConfig(**shape, projection_dim=6)
        return transformers.CLIPVisionModelWithProjection(vision)
    shape = {**SMALL, "intermediate_size": 32, "image_size": 16, "patch_size": 8, "num_frames": 4}
    return transformers.VideoMAEModel(transformers.VideoMAEConfig(**shape))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """{name: (a folder as the library saves it, the model)}"""
    root = tmp_path_factory.mktemp("saved")
    made = {}
    for name in NAMES:
        model = _model(name).eval()
        model.save_pretrained(root / name)
        made[name] = (root / name, model)
    return made


@pytest.fixture(autouse=True)
def nowhere(monkeypatch):
    monkeypatch.delenv(FOLDER, raising=False)


def _open(name, weights=None, **rest):
    return (video_network if name == "videomae" else feature_network)(name, weights, **rest)


def _normalized(pixels, mean, std):
    shape = (3, 1, 1)
    return (pixels - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)


IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def test_dinov2_is_the_librarys(folders):
    folder, model = folders["dinov2"]
    ours = _open("dinov2", folder)
    pixels = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)  # nothing to resize
    with torch.no_grad():
        theirs = model(_normalized(pixels / 255, *IMAGENET)).pooler_output
    torch.testing.assert_close(ours(pixels), theirs, rtol=1e-4, atol=1e-5)
    assert ours.dim == 16 == theirs.shape[1] and ours.sha256 == sha256(folder / "model.safetensors")
    assert "bicubic" in ours.preprocess and "224" in ours.preprocess
    assert ours(pixels[..., :50, :40]).shape == (2, 16)
    seen = ours.features(pixels)
    assert seen.spatial is seen.logits is None


def test_clip_is_the_librarys(folders):
    folder, model = folders["clip"]
    ours = _open("clip", folder)
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        theirs = model(_normalized(pixels / 255, *CLIP)).image_embeds
    torch.testing.assert_close(ours(pixels), theirs, rtol=1e-4, atol=1e-5)
    assert ours.dim == 6 and "CLIP mean" in ours.preprocess and "to 16" in ours.preprocess


def test_clip_of_a_whole_clip_with_its_text(tmp_path):
    """The released file holds the text tower too; only the image's half is read."""
    torch.manual_seed(0)
    vision = {**SMALL, "intermediate_size": 32, "image_size": 16, "patch_size": 8}
    vision["projection_dim"] = 6
    text = {**SMALL, "intermediate_size": 32, "vocab_size": 20, "max_position_embeddings": 8}
    text |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=6)
    model = transformers.CLIPModel(config).eval()
    model.save_pretrained(tmp_path)
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        x = model.vision_model(_normalized(pixels / 255, *CLIP)).pooler_output
        theirs = model.visual_projection(x)
    torch.testing.assert_close(_open("clip", tmp_path)(pixels), theirs, rtol=1e-4, atol=1e-5)


def test_videomae_is_the_librarys(folders):
    folder, model = folders["videomae"]
    ours = _open("videomae", folder, clips="styleganv")
    clips = torch.rand(2, 3, 4, 16, 16)
    with torch.no_grad():
        tokens = model(_normalized(clips.transpose(1, 2), *IMAGENET)).last_hidden_state
    torch.testing.assert_close(ours(clips), tokens.mean(1), rtol=1e-4, atol=1e-5)
    assert ours.preprocess.startswith("styleganv; to 16")
    with pytest.raises(ValueError, match="clips of 5 frames; expected exactly 4"):
        ours(torch.rand(1, 3, 5, 16, 16))


def test_videomae_of_the_released_classifier(tmp_path):
    """The released file holds a classifier, whose head and last norm are left out."""
    torch.manual_seed(0)
    shape = {**SMALL, "intermediate_size": 32, "image_size": 16, "patch_size": 8, "num_frames": 4}
    config = transformers.VideoMAEConfig(**shape, use_mean_pooling=True, num_labels=5)
    model = transformers.VideoMAEForVideoClassification(config).eval()
    model.save_pretrained(tmp_path)
    keys = load_file(tmp_path / "model.safetensors")
    assert {"classifier.weight", "fc_norm.weight"} <= set(keys)
    assert "videomae.encoder.layer.0.attention.attention.q_bias" in keys
    clips = torch.rand(2, 3, 4, 16, 16)
    with torch.no_grad():
        seen = model.videomae(_normalized(clips.transpose(1, 2), *IMAGENET)).last_hidden_state
    ours = _open("videomae", tmp_path)
    torch.testing.assert_close(ours(clips), seen.mean(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_frozen_named_and_found_by_folder(name, folders, tmp_path, monkeypatch):
    from vistok.frozen import hf

    home = {"dinov2": hf.DINOV2, "clip": hf.CLIP, "videomae": hf.VIDEOMAE}[name]
    shutil.copytree(folders[name][0], tmp_path / home.folder)
    monkeypatch.setenv(FOLDER, str(tmp_path))
    network = _open(name)
    assert network.name == name and len(network.sha256) == 64
    assert not any(p.requires_grad for p in network.train().parameters())
    assert not any(m.training for m in network.modules())


@pytest.mark.parametrize("name", NAMES)
def test_bin_files_are_read_as_plain_tensors(name, folders, tmp_path):
    folder = folders[name][0]
    shutil.copy(folder / "config.json", tmp_path)
    torch.save(load_file(folder / "model.safetensors"), tmp_path / "pytorch_model.bin")
    clips = torch.zeros(1, 3, 4, 16, 16)
    pixels = clips if name == "videomae" else clips[:, :, 0].byte()
    assert torch.equal(_open(name, tmp_path)(pixels), _open(name, folder)(pixels))

    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"a": Trap()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(BadWeights) as error:
        _open(name, tmp_path)
    assert "\n" not in str(error.value) and not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("given", [False, True])
def test_missing_weights_say_what_to_fetch(name, given, tmp_path, fails):
    words = [name, "config.json", "https://huggingface.co/", FOLDER, "--weights"]
    with fails(MissingWeights, *words, *(["nothing"] if given else [])):
        _open(name, tmp_path / "nothing" if given else None)


@pytest.mark.parametrize("name", NAMES)
def test_other_files_are_refused(name, folders, tmp_path, fails):
    shutil.copy(folders[name][0] / "config.json", tmp_path)
    state = load_file(folders[name][0] / "model.safetensors")
    gone = sorted(key for key in state if key.endswith("weight"))[0]
    save_file({k: v for k, v in state.items() if k != gone}, tmp_path / "model.safetensors")
    with fails(BadWeights, "is absent or of another shape", "expected the files of"):
        _open(name, tmp_path)
    save_file({**state, gone: torch.zeros(3)}, tmp_path / "model.safetensors")
    with fails(BadWeights, f"'{gone}' is absent or of another shape"):
        _open(name, tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"junk")
    with fails(BadWeights, "does not fit"):
        _open(name, tmp_path)


def test_code_of_a_folder_is_not_run(folders, tmp_path, fails):
    shutil.copytree(folders["dinov2"][0], tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "trap.Trap", "AutoConfig": "trap.Trap"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    _open("dinov2", tmp_path)
    assert not (tmp_path / "ran").exists()


def test_without_the_library_it_is_said_how_to_get_it(monkeypatch, tmp_path, fails):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with fails(MissingWeights, r"pip install 'vistok\[features\]'"):
        _open("dinov2", tmp_path)
