"""KL-16 as it is released: a bare state dict whose sizes follow from names and shapes."""

from __future__ import annotations

import pytest
import torch

from vistok import pretrained
from vistok.config import ConfigError, validate
from vistok.pretrained import FAMILIES, from_official, to_official
from vistok.storage.weights import WeightsError
from vistok.tokenizer import Tokenizer, TokenizerConfig

SMALL = {"embed_dim": 4, "ch_mult": [1, 2, 2], "ch": 32, "num_res_blocks": 1, "resolution": 32,
         "attn_resolutions": [16, 8]}  # fmt: skip


def state_of(**changes) -> dict[str, torch.Tensor]:
    """Random weights in the official layout."""
    torch.manual_seed(0)
    tree = FAMILIES["mar_vae"].config(SMALL | changes)
    state, _ = to_official(Tokenizer(validate(TokenizerConfig, tree)), "mar_vae")
    return {key: torch.randn_like(tensor) for key, tensor in state.items()}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"embed_dim": 3, "z_channels": 6},
        {"ch_mult": [1]},
        {"num_res_blocks": 2, "use_variational": False},
        {"resamp_with_conv": False, "decoder_attn_resolutions": [16]},
    ],
    ids=str,
)
def test_a_bare_file_opens_and_is_given_back(tmp_path, changes):
    state = state_of(**changes)
    held = {
        **state,
        "loss.logvar": torch.zeros(()),
        "loss.discriminator.main.0.bias": torch.ones(2),
    }
    torch.save({"model": held, "epoch": 3}, tmp_path / "kl16.ckpt")
    tokenizer = pretrained.load(tmp_path / "kl16.ckpt")
    assert tokenizer.origin.family == "mar_vae"
    wanted = FAMILIES["mar_vae"].config(SMALL | changes)
    found = FAMILIES["mar_vae"].config(tokenizer.origin.config)
    assert found == wanted | {"image_size": found["image_size"]}  # which no weights tell
    assert FAMILIES["mar_vae"].config(FAMILIES["mar_vae"].official(tokenizer.config)) == found
    back, _ = to_official(tokenizer)
    assert set(back) == set(held) and all(torch.equal(back[k], held[k]) for k in held)
    if len(tokenizer.config.encoder.conv.channel_mult) == 1:
        return  # a token for each of 256 x 256 pixels
    tokens = tokenizer.encode(torch.rand(1, 3, *tokenizer.shape.sides))
    assert tokens.values.shape[-1] == (SMALL | changes)["embed_dim"] and tokens.indices is None


def test_another_layout_of_the_same_cnn_is_not_taken_for_it():
    config = FAMILIES["ibq"].releases[0].config
    network = {"ddconfig": config["ddconfig"] | {"ch": 32, "num_res_blocks": 1}}
    tree = FAMILIES["ibq"].config(config | network)
    state, _ = to_official(Tokenizer(validate(TokenizerConfig, tree)), "ibq")
    assert not FAMILIES["mar_vae"].recognizes({}, state)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"decoder_attn_resolutions": 16}, "decoder_attn_resolutions=16; expected a list"),
        ({"resolution": [32, 32]}, "resolution=.*; expected one whole number"),
        ({"use_variational": 1}, "use_variational: got 1; expected true or false"),
        ({"resamp_with_conv": "no"}, "resamp_with_conv: got 'no'; expected true or false"),
    ],
    ids=str,
)
def test_what_it_cannot_take_is_one_line(changes, said):
    with pytest.raises(ConfigError, match=said) as error:
        from_official("mar_vae", state_of(), SMALL | changes)
    assert "\n" not in str(error.value)


def test_a_missing_and_a_strange_tensor_are_named():
    state = state_of()
    rest = {key: tensor for key, tensor in state.items() if key != "quant_conv.bias"}
    with pytest.raises(WeightsError, match=r"quant_conv\.bias"):
        from_official("mar_vae", rest, SMALL)
    with pytest.raises(WeightsError, match=r"encoder\.strange"):
        from_official("mar_vae", {**state, "encoder.strange": torch.zeros(1)}, SMALL)


@pytest.mark.parametrize(
    ("part", "changes", "said"),
    [
        ("quantizer", {"logvar": 0.5}, "quantizer.logvar=0.5 has no place"),
        ("quantizer", {"logvar_range": (-10.0, 10.0)}, "quantizer.logvar_range=.* has no place"),
        ("encoder", {"kernel_proj": 3}, "encoder.kernel_proj=3 has no place"),
    ],
    ids=str,
)
def test_what_the_layout_has_no_place_for_is_named(part, changes, said):
    tree = FAMILIES["mar_vae"].config(SMALL)
    tokenizer = Tokenizer(validate(TokenizerConfig, tree | {part: tree[part] | changes}))
    with pytest.raises(ConfigError, match=said):
        to_official(tokenizer, "mar_vae")


BRIDGE = SMALL | {"bits": 3, "range": 2.0, "std_range": 2.5, "latent_scale": 0.5}


@pytest.mark.parametrize(
    ("changes", "levels", "ends"),
    [
        ({}, 8, (-2.0, 2.0)),
        ({"quant_bits": 4, "quant_min": -1.0, "quant_max": 3.0}, 16, (-1.0, 3.0)),
        ({"use_variational": False}, 8, (-2.0, 2.0)),
    ],
    ids=str,
)
def test_tokenbridge_is_the_same_file_with_constants(changes, levels, ends):
    config = BRIDGE | changes
    network = {key: value for key, value in config.items() if key == "use_variational"}
    state = state_of(**network)
    tokenizer = from_official("tokenbridge", state, config)
    assert tokenizer.spec().vocab == (levels,) * 4 and tokenizer.spec().branches == 1
    scalar = tokenizer.config.quantizer.quantizer
    assert (scalar.range, scalar.std_range) == (ends, 2.5)
    back, _ = to_official(tokenizer)
    assert set(back) == set(state) and all(torch.equal(back[k], state[k]) for k in state)
    family = FAMILIES["tokenbridge"]
    assert family.config(family.official(tokenizer.config)) == family.config(config)
    assert family.recognizes(config, state) and not FAMILIES["mar_vae"].recognizes(config, state)
    assert not family.recognizes({}, state)
    pixels = torch.rand(2, 3, 32, 32)
    plain = from_official("mar_vae", state, SMALL | network)
    z, rounded = plain.encode(pixels).values, tokenizer.quantize(tokenizer.latents(pixels)).values
    inside = (z * 0.5 > ends[0]) & (z * 0.5 < ends[1])
    assert (rounded - z)[inside].abs().max() < (ends[1] - ends[0]) / 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bits": -1}, "bits=-1; expected 1..16, .* that is family mar_vae"),
        ({"bits": 6.0}, "bits=6.0; expected 1..16"),
        ({"range": "wide"}, "range='wide'; expected a number"),
        ({"range": -5.0}, "range=.* low first"),
        ({"latent_scale": 0}, "quantizer.scale: got 0"),
    ],
    ids=str,
)
def test_constants_that_cannot_be_are_one_line(changes, said):
    with pytest.raises(ConfigError, match=said) as error:
        from_official("tokenbridge", state_of(), BRIDGE | changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shift": 1.0}, "quantizer.shift=1.0 has no place"),
        ({"levels": 5}, "quantizer.quantizer.levels=5 has no place"),
        ({"empty_bins": "end"}, "quantizer.quantizer.empty_bins=end has no place"),
    ],
    ids=str,
)
def test_other_levels_have_no_place_in_the_layout(changes, said):
    tree = FAMILIES["tokenbridge"].config(BRIDGE)
    inner = {k: v for k, v in changes.items() if k != "shift"}
    own = tree["quantizer"] | {k: v for k, v in changes.items() if k == "shift"}
    own["quantizer"] = own["quantizer"] | inner
    config = validate(TokenizerConfig, tree | {"quantizer": own})
    with pytest.raises(ConfigError, match=said):
        FAMILIES["tokenbridge"].official(config)
