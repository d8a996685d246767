"""FlexTok's files: a config in the header, wrapped blocks, stored tables, options of the config."""

import copy
import json

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from tests.support.flextok_family import tree
from tests.support.official import FLEXTOK, official
from vistok.cli import main
from vistok.config import ConfigError, validate
from vistok.pretrained import from_official, load, to_official
from vistok.pretrained.find import kind_of_weights
from vistok.pretrained.tokenizers.flextok import FlexTok
from vistok.storage.literals import LONGEST, literal
from vistok.storage.weights import WeightsError
from vistok.tokenizer import Tokenizer, TokenizerConfig

pytest.importorskip("diffusers")
FAMILY = FlexTok()
WRAPPED = "blocks.{}._checkpoint_wrapped_module."


def encoder(tree):
    return tree["encoder"]["module_dict"]


def decoder(tree):
    return tree["decoder"]["module_dict"]


def test_both_ways_bit_for_bit(tmp_path):
    family, state, config = official("flextok")
    state |= {key: tensor for key, tensor in FAMILY.fixed(ours(config)).items()}
    state["decoder.module_dict.dec_nested_dropout.dropout_mask_token"] = torch.ones(16).half()
    tokenizer = from_official(family, {**state, "vae.logvar": torch.ones(())}, config)
    tokenizer.save_pretrained(tmp_path / "ours")
    for one in (tokenizer, Tokenizer.from_pretrained(tmp_path / "ours")):
        back, back_config = to_official(one)
        assert back_config == config and set(back) == {*state, "vae.logvar"}
        assert all(back[k].dtype == v.dtype and torch.equal(back[k], v) for k, v in state.items())
    written = FAMILY.official(tokenizer.config)
    assert from_official(family, back, written).config == tokenizer.config


def ours(config) -> TokenizerConfig:
    return validate(TokenizerConfig, FAMILY.config(config))


def files():
    _, state, config = official("flextok")
    return state | FAMILY.fixed(ours(config)), config


def test_a_config_in_the_header_is_parsed_and_never_run(tmp_path, fails):
    state, config = files()
    header = {key: str(value) for key, value in config.items()} | {"format": "pt"}
    save_file(state, tmp_path / "model.safetensors", metadata=header)
    tokenizer = load(tmp_path / "model.safetensors")
    assert tokenizer.config == from_official("flextok", state, config).config
    assert tokenizer.origin.family == "flextok"
    assert kind_of_weights(tmp_path / "model.safetensors") == "tokenizer"
    out = tmp_path / "converted"
    done = CliRunner().invoke(main, ["import", str(tmp_path / "model.safetensors"), str(out)])
    assert done.exit_code == 0 and "(flextok)" in done.output, done.output
    bomb = header | {"vae": "__import__('pathlib').Path('pwned').touch()"}
    save_file(state, tmp_path / "bomb.safetensors", metadata=bomb)
    with fails(ConfigError, "config.json"):
        load(tmp_path / "bomb.safetensors")
    assert not list(tmp_path.rglob("pwned"))
    assert literal("{'a': [1, (2.5, None)]}") == {"a": [1, (2.5, None)]}
    for text in ("a b", "f()", "[" * 500 + "]" * 500, "1" * (LONGEST + 1), "{[]: 1}"):
        assert literal(text) == text


def test_the_hubs_config_may_lie_below_its_own_key(tmp_path):
    state, config = files()
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"config": config}))
    assert load(tmp_path).config == from_official("flextok", state, config).config


def test_levels_of_activation_checkpointing_are_cut_off():
    state, config = files()
    wrapped = state
    for number in range(2):
        change = (f"blocks.{number}.", WRAPPED.format(number))
        wrapped = {key.replace(*change): tensor for key, tensor in wrapped.items()}
    assert any("_checkpoint_wrapped_module" in key for key in wrapped)
    back, _ = to_official(from_official("flextok", wrapped, config))
    assert set(back) == set(state)


def test_wrong_weights_are_one_line(fails):
    state, config = files()
    table = "encoder.module_dict.enc_posemb_module.posembs"
    with fails(WeightsError, table, "not the numbers that its config makes"):
        from_official("flextok", {**state, table: state[table] + 0.1}, config)
    key = "decoder.module_dict.dec_latent_dropout.nullcond"
    with fails(WeightsError, f"missing {key}"):
        from_official("flextok", {k: v for k, v in state.items() if k != key}, config)
    key = "decoder.module_dict.dec_noise_patch_emb.patch_proj.weight"
    with fails(WeightsError, key, r"shape \(16, 20\); expected \(16, 16\) by its config"):
        from_official("flextok", {**state, key: torch.zeros(16, 20)}, config)


OPTIONS = {
    "qk_norm": lambda t: encoder(t)["enc_transformer"].update(qk_norm=False),
    "plain mlp": lambda t: decoder(t)["dec_transformer"].update(
        gated_mlp=False, act_layer="torch.nn.GELU", mlp_ratio=2.7
    ),
    "biases": lambda t: decoder(t)["dec_transformer"].update(qkv_bias=True, mlp_bias=True),
    "learned table": lambda t: decoder(t)["dec_patches_posemb_module"].update(
        posemb_type="learnable_prod", posemb_scaling="interpolate", max_sizes=[6, 6]
    ),
    "long table": lambda t: decoder(t)["dec_registers_posemb_module"].update(max_sizes=[9]),
    "no tables": lambda t: (
        encoder(t).pop("enc_posemb_module"),
        decoder(t).pop("dec_registers_posemb_module"),
    ),
    "no dropout": lambda t: (
        decoder(t).pop("dec_nested_dropout"),
        decoder(t).pop("dec_latent_dropout"),
    ),
    "single null": lambda t: decoder(t)["dec_latent_dropout"].update(
        replace_with_single_token=True, dropout_prob=0.3
    ),
    "plain head": lambda t: decoder(t)["dec_to_patches"].pop("adaLN_emb_read_key"),
    "masks": lambda t: (
        encoder(t)["enc_seq_packer"].update(mask_mode="causal"),
        decoder(t)["dec_seq_packer"].update(mask_mode="causal_last"),
    ),
    "one modulation": lambda t: (
        decoder(t)["dec_seq_packer"].update(per_subseq_embs=False),
        decoder(t)["dec_transformer"].update(adaLN_expansion=1),
    ),
    "times": lambda t: t["flow_matching_noise_module"].update(ln=False, mode_scale=0.25),
    "taps": lambda t: decoder(t)["dec_transformer"].update(intermediate_layers=[0, 1]),
}
REFUSED = {
    "n_eval": (lambda t: encoder(t)["enc_register_module"].update(n_eval=2), "n_eval"),
    "mup": (lambda t: decoder(t)["dec_to_patches"].update(use_mup_readout=True), "use_mup_readout"),
    "relu": (
        lambda t: decoder(t)["dec_transformer"].update(act_layer="torch.nn.ReLU"),
        "act_layer=torch.nn.ReLU",
    ),
    "class": (lambda t: t["vae"].update(_target_="os.system"), "names the class os.system"),
    "argument": (lambda t: decoder(t)["dec_transformer"].update(rope=1), "dec_transformer.rope"),
    "module": (lambda t: decoder(t).update(dec_new={}), "module_dict.dec_new"),
    "patches": (
        lambda t: decoder(t)["dec_noise_patch_emb"].update(patch_sizes=[2, 1]),
        "patch_sizes",
    ),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_the_official_code_are_taken(name):
    config = copy.deepcopy(tree(FLEXTOK))
    config["constants"]["image_size"] = 16
    OPTIONS[name](config)
    torch.manual_seed(0)
    tokenizer = Tokenizer(ours(config))
    assert tokenizer.config != ours(tree(FLEXTOK))
    state, written = to_official(tokenizer, "flextok")
    again = from_official("flextok", state, written)
    assert again.config == tokenizer.config
    mine, theirs = tokenizer.state_dict(), again.state_dict()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)


@pytest.mark.parametrize("name", REFUSED)
def test_other_options_are_refused_by_name(name, fails):
    config = copy.deepcopy(tree(FLEXTOK))
    change, said = REFUSED[name]
    change(config)
    with fails(ConfigError, "flextok", said):
        FAMILY.config(config)
