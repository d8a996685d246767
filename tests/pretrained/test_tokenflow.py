"""TokenFlow as it is released: a trainer's checkpoint; towers, inert tensors, options, damage."""

from __future__ import annotations

import json

import pytest
import torch

from vistok import pretrained
from vistok.config import ConfigError, validate
from vistok.pretrained import from_official, to_official
from vistok.pretrained.tokenizers.tokenflow_towers import TEACHERS
from vistok.storage.weights import WeightsError
from vistok.tokenizer import Tokenizer, TokenizerConfig

FAMILY = pretrained.FAMILIES["tokenflow"]
STEM = {"stem": 4, "channels": [4, 8], "blocks": [2, 1], "expand": 2}
SMALL = {"codebook_size": 32, "codebook_embed_dim": 4, "semantic_code_dim": 6, "z_channels": 8,
         "embed_dim": 32, "num_heads": 2, "encoder_heads": 2, "encoder_depth": 2, "grid": 2,
         "scales": [1, 2], "ch_mult": [1, 1, 1, 1, 1], "pixel_ch": 32, "num_res_blocks": 1,
         "semantic_decoder_depth": 1, "decoder_out_dim": 16}  # fmt: skip
SIGLIP = "encoder_vqkd.vision_model"


def settings(teacher: str, **changes) -> dict:
    given = SMALL | {"teacher": teacher}
    if teacher.startswith("vitamin"):
        given["encoder_stem"] = STEM
    if teacher.startswith("siglip"):
        given |= {"image_size": 30, "encoder_mlp_ratio": 2.0}
    return given | changes


def weights(config: dict) -> dict[str, torch.Tensor]:
    """A checkpoint of a config: random numbers in all places but those that follow from it."""
    torch.manual_seed(0)
    tokenizer = Tokenizer(validate(TokenizerConfig, FAMILY.config(config)))
    state, _ = to_official(tokenizer, "tokenflow")
    kept = ("scaling_layer.",)
    return {k: t if k.startswith(kept) else torch.randn_like(t) for k, t in state.items()}


@pytest.mark.parametrize("teacher", TEACHERS)
def test_every_teacher_there_and_back(teacher):
    config = settings(teacher)
    state = weights(config) | {"quantize.codebook_used": torch.arange(131072.0)}
    tokenizer = from_official("tokenflow", state, config)
    again, said = to_official(tokenizer)
    assert said == config and again.keys() == state.keys()
    assert all(torch.equal(again[key], tensor) for key, tensor in state.items())
    own = FAMILY.official(tokenizer.config)
    assert from_official("tokenflow", state, own).config == tokenizer.config
    side = tokenizer.shape.sides[0]
    tokens = tokenizer.encode(torch.rand(2, 3, side, side))
    assert tokens.indices.shape == (2, 5, 1)
    assert tokenizer.decode(tokens.prefix(1)).shape == (2, 3, side, side)


def test_nobody_reads_siglips_last_block():
    config = settings("siglip_384")
    state = weights(config)
    unread = [key for key in state if ".layers.1." in key or f"{SIGLIP}.head." in key]
    assert len(unread) == 16 + 11 and f"{SIGLIP}.post_layernorm.bias" in state
    tokenizer = from_official("tokenflow", state, config)
    pixels = torch.rand(1, 3, 30, 30)
    changed = {key: t + 1 if key in unread else t for key, t in state.items()}
    other = from_official("tokenflow", changed, config)
    assert torch.equal(tokenizer.latents(pixels).values, other.latents(pixels).values)
    assert torch.equal(to_official(other)[0][unread[0]], changed[unread[0]])
    odd = state | {f"{SIGLIP}.encoder.layers.0.odd.weight": torch.zeros(1)}
    with pytest.raises(WeightsError, match=r"unexpected .*layers\.0\.odd\.weight"):
        from_official("tokenflow", odd, config)


def test_a_trainers_checkpoint_is_known_by_its_marks(tmp_path):
    config = settings("clipb_224", infer_interpolate=True, scales=[1, 2, 3], image_size=48)
    state, file = weights(config), tmp_path / "0005000.pt"
    torch.save({"model": state, "optimizer": {"state": {}}, "discriminator": {}, "steps": 5}, file)
    (tmp_path / "config.json").write_text(json.dumps(config))
    tokenizer = pretrained.open(str(file))
    assert tokenizer.origin.family == "tokenflow" and tokenizer.spec().length == 14
    assert FAMILY.constants(state)["codebook_size"] == 32
    assert FAMILY.constants(weights(settings("siglip_384")))["teacher"] == "siglip_384"
    trainer = {"vq_model": "TokenFlow", "teacher": "clipb_224", "lr": 1e-4, "image_size": 256}
    assert FAMILY.config(trainer)["image_size"] == 224


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"teacher": "dino"}, "teacher='dino'; expected one of clipb_224"),
        ({"codebook_l2_norm": False}, "codebook_l2_norm=false looks codes up in a table"),
        ({"kmeans": True}, "kmeans=true averages one of the two tables"),
        ({"enhanced_decoder": "yes"}, "enhanced_decoder: got 'yes'; expected true or false"),
    ],
)
def test_what_it_cannot_take_is_one_line(changes, said):
    with pytest.raises(ConfigError, match=said) as error:
        FAMILY.config(settings("clipb_224") | changes)
    assert "\n" not in str(error.value)


def test_a_missing_and_a_strange_tensor_are_named():
    config = settings("clipb_224")
    state = weights(config)
    rest = {key: tensor for key, tensor in state.items() if key != "encode_task_layer.2.bias"}
    with pytest.raises(WeightsError, match=r"encode_task_layer\.2\.bias"):
        from_official("tokenflow", rest, config)
    with pytest.raises(WeightsError, match=r"decoder_vqkd\.strange"):
        from_official("tokenflow", state | {"decoder_vqkd.strange": torch.zeros(1)}, config)


def test_other_parts_have_no_place_there():
    tree = FAMILY.config(settings("clipb_224"))
    tree["quantizer"]["quantizer"] = {"kind": "vq", "dim": 10}
    with pytest.raises(ConfigError, match=r"parts of the kinds .* vq, cnn have no place"):
        FAMILY.official(validate(TokenizerConfig, tree))
