"""Instella's tokenizer: weights without a config, options of the official code, mistakes."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from tests.support.official import FLAT, official
from vistok.config import ConfigError, validate
from vistok.core.records import Condition
from vistok.pretrained import from_official, load, to_official
from vistok.pretrained.tokenizers.instella import Instella
from vistok.storage.weights import WeightsError
from vistok.tokenizer import Tokenizer, TokenizerConfig

FAMILY = Instella()


def test_bits_per_token_are_read_from_the_weights():
    """The official file of constants names 64, the model card of its weights 128."""
    _, state, config = official("instella")
    for key in ("quantizer.embed", "quantizer.proj.0.weight", "quantizer.proj.0.bias"):
        state[key] = torch.cat([state[key], state[key]])
    with pytest.warns(UserWarning, match="codebook_size=6, but quantizer.embed has 12 bits"):
        tokenizer = from_official("instella", state, config)
    assert tokenizer.spec().vocab == (2,) * 12
    silent = {key: value for key, value in config.items() if key != "codebook_size"}
    assert from_official("instella", state, silent).config == tokenizer.config


def test_the_released_sizes():
    release = FAMILY.releases[0].config
    with torch.device("meta"):
        tokenizer = Tokenizer(validate(TokenizerConfig, FAMILY.config(release)))
    assert tokenizer.spec().length == 128 and tokenizer.spec().bits == 8192
    assert tokenizer.encoder.transformer.scale == 64 and tokenizer.decoder.transformer.scale == 32


def test_a_bare_file_has_the_sizes_of_the_release(tmp_path, monkeypatch, fails):
    _, state, config = official("instella")
    release = replace(FAMILY.releases[0], config=config)
    monkeypatch.setattr(Instella, "releases", (release,))
    path = tmp_path / "model.safetensors"
    save_file(state, path)
    tokenizer = load(path)
    assert tokenizer.origin.family == "instella" and tokenizer.spec().vocab == (2,) * 6
    back, _ = to_official(tokenizer)
    assert set(back) == set(state) and all(torch.equal(back[key], state[key]) for key in state)
    more = {"encoder.transformer_blocks.2.attn.q_proj.weight": torch.zeros(16, 16)}
    save_file(state | more, path)
    with fails(WeightsError, r"unexpected encoder\.transformer_blocks\.2\.attn\.q_proj\.weight"):
        load(path)
    del state["decoder.up_layers.0.conv.bias"]
    save_file(state, path)
    with fails(WeightsError, r"missing decoder\.up_layers\.0\.conv\.bias"):
        load(path)


def test_what_was_trained_here_is_written_whole():
    """With the projector that the official code makes where a block is aligned."""
    config = validate(TokenizerConfig, FAMILY.config(FLAT["instella-repa"]))
    assert config.decoder.taps == {"repa": 2}
    state, written = to_official(Tokenizer(config), "instella")
    shapes = {k: tuple(v.shape) for k, v in state.items() if k.startswith("decoder.repa_proj")}
    assert shapes["decoder.repa_proj.3.weight"] == (1024, 24) and len(shapes) == 6
    assert written == {"in_channels": 3, "train_temp": 0.1, **FLAT["instella-repa"]}
    assert from_official("instella", state, written).config == config
    state, _ = to_official(
        Tokenizer(validate(TokenizerConfig, FAMILY.config(FLAT["instella"]))), "instella"
    )
    assert not any("repa" in key for key in state)


def test_a_projector_of_another_width_is_carried_along():
    _, state, config = official("instella")
    extra = {"decoder.repa_proj.3.weight": torch.randn(7, 24)}
    tokenizer = from_official("instella", state | extra, config)
    back, _ = to_official(tokenizer)
    assert torch.equal(back["decoder.repa_proj.3.weight"], extra["decoder.repa_proj.3.weight"])


def test_a_block_that_no_decoder_has_is_never_aligned():
    config = {**FLAT["instella"], "use_repa": True, "repa_dim": 8, "repa_index": 3}
    assert FAMILY.config(config)["decoder"]["taps"] == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"in_channels": 4}, "in_channels=4; expected 3, RGB images"),
        ({"downsample_idx": [7]}, r"downsample_idx=\[7\]; expected a list of different blocks"),
        ({"upsample_idx": [1, 1]}, r"upsample_idx=\[1, 1\]; expected .* each in 0..2"),
        ({"upsample_idx": None}, "upsample_idx=None"),
        ({"use_repa": True}, "use_repa with repa_index=None and repa_dim=None"),
        ({"use_repa": True, "repa_index": 1, "repa_dim": 0}, "repa_dim=0"),
        ({"axes_dims_rope": [2, 2, 2]}, "add up to 6; expected 8"),
        ({"axes_dims_rope": [2, 2, 2, 2]}, "rotary.channels"),
        ({"decoder_head_dim": 6}, "add up to 8; expected 6"),
        ({"image_hw": [16, 20]}, r"sides=\(16, 20\) are no multiples of 8"),
    ],
)
def test_options_that_are_refused(fails, change, words):
    family, state, config = official("instella")
    with fails(ValueError, words):
        from_official(family, state, {**config, **change}, "somewhere")


def test_a_change_of_ours_has_no_place_in_the_official_layout(fails):
    config = validate(TokenizerConfig, FAMILY.config(FLAT["instella"]))
    rotary = config.encoder.rotary.model_copy(update={"pairing": "adjacent"})
    changed = config.model_copy(
        update={"encoder": config.encoder.model_copy(update={"rotary": rotary})}
    )
    with fails(ConfigError, "encoder.rotary=.* has no place in the official layout"):
        FAMILY.official(changed)


def test_an_import_decodes_to_any_size():
    tokenizer = from_official(*official("instella"))
    tokens = tokenizer.encode(torch.rand(1, 3, 16, 24))
    assert tokenizer.decode(tokens, Condition(sides=(32, 40))).shape == (1, 3, 32, 40)
