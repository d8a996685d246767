"""GPSToken as it is released: whole YAMLs, options, what a file holds besides, damage."""

from __future__ import annotations

import pytest
import torch

from vistok import pretrained
from vistok.config import ConfigError, validate
from vistok.pretrained import from_official, to_official
from vistok.storage.weights import WeightsError
from vistok.tokenizer import Tokenizer, TokenizerConfig

REGIONS = {"rois": 2, "gpsenc_n": 2, "gpsenc_c": 16, "gps_c": 4, "gps_num": 5, "gps_dmax": 3,
           "gps_adaptive_w": 2.5, "gps_rs": [8, 8]}  # fmt: skip
NETWORK = {"double_z": False, "z_channels": 4, "resolution": 16, "in_channels": 3, "out_ch": 3,
           "ch": 32, "ch_mult": [1, 1], "num_res_blocks": 1, "attn_resolutions": [],
           "dropout": 0.0}  # fmt: skip


def settings(regions=None, network=None, **rest) -> dict:
    """The official arguments, with changes."""
    given = {"gpsconfig": REGIONS | (regions or {}), "decoderconfig": NETWORK | (network or {})}
    return given | {"stem_width": 32, "minhw": 2, "patches_per_side": 1} | rest


def network(**changes) -> Tokenizer:
    tree = pretrained.FAMILIES["gpstoken"].config(settings(**changes))
    return Tokenizer(validate(TokenizerConfig, tree))


@pytest.fixture(scope="module")
def plain() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    state, _ = to_official(network(), "gpstoken")
    return {key: torch.randn_like(tensor) for key, tensor in state.items()}


def test_a_whole_yaml_is_read(plain):
    rest = {"train": {"lr": 5e-5}, "loss": {"discriminator": {"disc_start": 600000}}}
    small = {key: value for key, value in settings().items() if key.endswith("config")}
    tree = pretrained.FAMILIES["gpstoken"].config({"model": small, **rest})
    assert tree["encoder"]["stem_width"] == 128 and tree["encoder"]["least"] == 8
    assert tree["image_size"] == [16, 16] and tree["quantizer"]["dim"] == 9


def test_what_a_file_holds_besides_is_carried(plain):
    more = {"preprocess_img.1.temb_proj.weight": torch.ones(2), "ema_model.initted": torch.ones(1)}
    tokenizer = from_official("gpstoken", plain | more, settings())
    state, official = to_official(tokenizer)
    assert official == settings() and set(state) == {*plain, *more}
    assert all(torch.equal(state[key], tensor) for key, tensor in (plain | more).items())


@pytest.mark.parametrize(
    "changes",
    [
        {"regions": {"gps_num": 9, "rois": 3, "gps_rs": [8, 12]}},
        {"network": {"attn_resolutions": [8]}},
        {"network": {"dropout": 0.25, "num_res_blocks": 2}},
        {"network": {"resamp_with_conv": False}},
        {"patches_per_side": 2, "minhw": 3},
        {"merge": False, "patches_per_side": 2},
    ],
)
def test_options_go_both_ways(changes):
    """The official config of a tokenizer that was built of one is that one."""
    given = settings(**changes)
    found = pretrained.FAMILIES["gpstoken"].official(network(**changes).config)
    assert found == given


def test_bare_weights_are_known_by_their_features():
    family = pretrained.FAMILIES["gpstoken"]
    with torch.device("meta"):
        tokenizer = Tokenizer(validate(TokenizerConfig, family.config(family.releases[2].config)))
    keys = {key for entry in family.entries(tokenizer.config) for key in entry.theirs}
    state = {key: torch.zeros(32) for key in keys}
    assert family.constants(state)["gpsconfig"]["gps_num"] == 256
    state["to_gps.1.weight"] = torch.zeros(16)
    assert family.constants(state)["gpsconfig"]["gps_num"] == 128
    assert family.constants({"encoder.weight": torch.zeros(1)}) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"network": {"out_ch": 1}}, "out_ch=1; expected 3"),
        ({"network": {"give_pre_end": True}}, "give_pre_end=true"),
        ({"network": {"z_channels": 5}}, "z_channels=5 of a map of gps_c=4"),
        ({"network": {"resolution": [16, 16]}}, "resolution=.*; expected one whole number"),
        ({"regions": {"gps_rs": 8}}, "gps_rs=8; expected"),
        ({"gpsconfig": 3}, "gpsconfig=3; expected a mapping"),
    ],
)
def test_what_it_cannot_take_is_one_line(plain, changes, said):
    with pytest.raises(ConfigError, match=said) as error:
        from_official("gpstoken", plain, settings(**changes))
    assert "\n" not in str(error.value)


def test_a_missing_and_a_strange_tensor_are_named(plain):
    rest = {key: tensor for key, tensor in plain.items() if key != "gps_embed.weight"}
    with pytest.raises(WeightsError, match=r"gps_embed\.weight"):
        from_official("gpstoken", rest, settings())
    with pytest.raises(WeightsError, match=r"attnblocks\.7\.ln1\.weight"):
        from_official("gpstoken", {**plain, "attnblocks.7.ln1.weight": torch.ones(1)}, settings())
