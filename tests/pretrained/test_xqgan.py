"""XQ-GAN's files: trainers' checkpoints, tables of levels, all options of the official code."""

import argparse
import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from tests.support.official import FLAT, official
from vistok.cli import main
from vistok.config import ConfigError, validate
from vistok.pretrained import from_official, load, to_official
from vistok.pretrained.tokenizers.xqgan import MAIN_TRAINING, XQGAN
from vistok.storage.weights import WeightsError
from vistok.tokenizer import Tokenizer, TokenizerConfig

FAMILY = XQGAN()
NAMES = [name for name in FLAT if name.startswith("xqgan")]


@pytest.fixture
def checkpoint(tmp_path):
    """What the trainer saves: two models, optimizers, and its options as objects."""
    _, state, config = official("xqgan")
    other = {k: v + 1 if v.is_floating_point() else v for k, v in state.items()}
    options = {**config, "lr": 3e-5, "data_path": Path("/data"), "floor": float("nan"), "epochs": 2}
    torch.save(
        {
            "model": other,
            "ema": state,
            "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1.0}]},
            "discriminator": {"head.weight": torch.zeros(2)},
            "steps": 7,
            "args": argparse.Namespace(**options),
        },
        tmp_path / "main-train.pt",
    )
    return tmp_path / "main-train.pt"


def test_a_trainers_file_brings_its_config_and_its_averaged_weights(checkpoint, tmp_path):
    _, state, config = official("xqgan")
    tokenizer = load(checkpoint)
    assert tokenizer.origin.family == "xqgan" and tokenizer.origin.inside == "ema"
    assert tokenizer.config == from_official("xqgan", state, config).config
    kept = tokenizer.origin.config
    assert kept["lr"] == 3e-5 and "data_path" not in kept and "floor" not in kept
    tokenizer.save_pretrained(tmp_path / "ours")
    for one in (tokenizer, Tokenizer.from_pretrained(tmp_path / "ours")):
        back, _ = to_official(one)
        assert set(back) == set(state) and all(torch.equal(back[k], v) for k, v in state.items())
    assert Tokenizer.from_pretrained(tmp_path / "ours").origin.inside == "ema"


def test_the_import_says_which_weights_it_took(checkpoint, tmp_path):
    done = CliRunner().invoke(main, ["import", str(checkpoint), str(tmp_path / "ours")])
    assert done.exit_code == 0, done.output
    assert "(xqgan)" in done.output and "those under 'ema'" in done.output


def test_a_config_beside_the_file_comes_before_the_options_inside(checkpoint):
    _, _, config = official("xqgan")
    (checkpoint.parent / "config.yaml").write_text(json.dumps(config | {"beta": 0.0}))
    assert load(checkpoint).config.regularizers == ()


@pytest.mark.parametrize("name", NAMES)
def test_what_was_trained_here_is_written_whole(name):
    """With the tables and counters that only the official code holds, so that it loads strictly."""
    config = validate(TokenizerConfig, FAMILY.config(FLAT[name]))
    state, written = to_official(Tokenizer(config), "xqgan")
    levels = [key for key in state if key.endswith("lvl1LC")]
    branches = FLAT[name]["product_quant"]
    if FLAT[name]["abs_pos_embed"]:
        rows = torch.arange(1 + branches).repeat_interleave(torch.tensor([10] + [4] * branches))
        assert torch.equal(state["encoder.lvl1LC"], rows[None])  # 9 patches of 8 pixels, not 64
        assert torch.equal(state["decoder.lvl1LC"][0].bincount(), torch.tensor([10, 5]))
    else:
        assert not levels
        assert {"encoder.latent_pos_embed", "decoder.latent_pos_embed"} <= set(state)
    assert any(key.endswith("ema_vocab_hit_SV") for key in state)
    again = from_official("xqgan", state, written).config
    assert again.encoder == config.encoder and again.quantizer == config.quantizer
    assert again.decoder == config.decoder and again.regularizers == config.regularizers


def test_copies_of_teachers_come_along():
    _, state, config = official("xqgan")
    extra = {"semantic_model.cls_token": torch.rand(1, 1, 4), "sem_linear.weight": torch.rand(2, 2)}
    extra["detail_model.norm.weight"] = torch.rand(4)
    back, _ = to_official(from_official("xqgan", state | extra, config))
    assert all(torch.equal(back[key], value) for key, value in extra.items())


def test_tables_that_contradict_the_config_are_refused(fails):
    _, state, config = official("xqgan")
    for key in ("encoder.lvl1LC", "decoder.lvl1LC"):
        for wrong in (1 - state[key].clamp(max=1), state[key][:, 1:]):
            with fails(WeightsError, f"somewhere: {key}", "not the numbers that its config makes"):
                from_official("xqgan", {**state, key: wrong}, config, "somewhere")
    lacks = {key: value for key, value in state.items() if key != "encoder.lvl1LC"}
    with fails(WeightsError, "missing encoder.lvl1LC"):
        from_official("xqgan", lacks, config)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"enc_type": "cnn"}, "enc_type 'cnn'; expected dinov2"),
        ({"dec_type": "cnn"}, "dec_type 'cnn'; expected dinov2"),
        ({"encoder_model": "vit_giant_patch14_dinov2.lvd142m"}, "encoder_model 'vit_giant.*small"),
        (
            {"decoder_model": "vit_base_patch14_reg4_dinov2.lvd142m"},
            "decoder_model 'vit_b.*reg4",
        ),
        ({"num_latent_tokens": 15}, "num_latent_tokens 15; expected the square"),
        ({"num_latent_tokens": True}, "num_latent_tokens: got True"),
        ({"product_quant": 0}, "product_quant: got 0"),
        ({"abs_pos_embed": "False"}, "abs_pos_embed: got 'False'; expected true or false"),
        ({"codebook_l2_norm": 1}, "codebook_l2_norm: got 1"),
        ({"image_size": 512}, "image_size 512; expected 256"),
        ({"finetune": True, "enc_tuning_method": "lora"}, "merge the LoRA weights"),
        ({"lfq": True, "v_patch_nums": [1, 16]}, "codebook_size=4096"),
    ],
)
def test_options_that_are_not_read_are_one_line(change, words, fails):
    with fails(ConfigError, words):
        FAMILY.config({**MAIN_TRAINING, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"encoder_model": "vit_small_patch14_dinov2.lvd142m"},
        {"decoder_model": "vit_large_patch14_dinov2.lvd142m"},
        {"semantic_guide": "none", "detail_guide": "clip", "guide_type_2": "patch"},
        {"half_sem": True, "clip_norm": True, "sem_loss_scale": 2.0, "test_model": True},
        {"finetune": True, "enc_tuning_method": "frozen", "dec_tuning_method": "full"},
        {"commit_loss_beta": 1.0, "codebook_l2_norm": False, "abs_pos_embed": False},
        {"num_latent_tokens": 121, "v_patch_nums": [1, 1, 2, 3, 3, 4, 5, 6, 8, 11]},
        {"product_quant": 2, "codebook_embed_dim": 32, "share_quant_resi": 1},
        {"product_quant": 3, "v_patch_nums": [1, 16], "codebook_drop": 0.1, "start_drop": 2},
    ],
)
def test_options_that_are_read_come_back(change):
    config = validate(TokenizerConfig, FAMILY.config({**MAIN_TRAINING, **change}))
    assert validate(TokenizerConfig, FAMILY.config(FAMILY.official(config))) == config


def test_an_unknown_option_of_the_model_is_named():
    _, _, config = official("xqgan-own")
    own = {key: value for key, value in config.items() if key != "backbone"}
    arguments = {"model_args": {**own, "brand_new": 1}, "backbone": config["backbone"]}
    with pytest.warns(UserWarning, match=r"model_args\.brand_new is not known"):
        FAMILY.config(arguments)


def test_other_tokenizers_have_no_such_layout(fails):
    tree = FAMILY.config(FLAT["xqgan"])
    tree["encoder"]["latents"] = {"count": 4, "positions": True}
    with fails(ConfigError, "latents on the grid None.*expected squares"):
        FAMILY.official(validate(TokenizerConfig, tree))
