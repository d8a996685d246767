"""Tensors of wrong shapes, and files of other families: one line that names file and key."""

from __future__ import annotations

import pytest
import torch

from tests.pretrained.test_maskgen import official as official_maskgen
from tests.support.llamagen_gpt import official_gpt
from tests.support.maskgit import official_maskgit
from tests.support.nar import CLIPS, IMAGES, official_nar
from tests.support.official import official
from tests.support.var import official_var
from vistok import pretrained
from vistok.config import ConfigError, UserError
from vistok.pretrained import FAMILIES, find, from_official
from vistok.storage.weights import WeightsError


def of_var():
    state, config, vae, _ = official_var()
    return FAMILIES["var"].completed(state, vae), config


MADE = {
    "llamagen_gpt": official_gpt,
    "maskgit": official_maskgit,
    "maskgen": official_maskgen,
    "nar": lambda: official_nar(IMAGES),
    "var": of_var,
}


@pytest.mark.parametrize("family", MADE)
def test_every_axis_of_every_tensor_is_looked_at(family):
    """A row less, an axis more, no axis: a UserError of one line for each tensor that is read."""
    state, config = MADE[family]()
    inert = FAMILIES[family].inert
    for key, tensor in state.items():
        for wrong in (tensor[:-1], tensor[None], torch.zeros((), dtype=tensor.dtype)):
            try:
                from_official(family, {**state, key: wrong}, config, "some.pt")
            except UserError as error:
                message = str(error)
                assert message.startswith("some.pt") and "\n" not in message, key
                shape = tuple(wrong.shape)
                assert len(message) < 300 and f"{shape}; expected {shape}" not in message, key
            else:
                last = key.rsplit(".", 2)[-2] if "." in key else key
                assert any(last in pattern for pattern in inert), key


@pytest.mark.parametrize("change", [{"value": 8}, {"query": 12, "value": 20}, {"key": 0}])
def test_one_of_several_tensors_is_named(fails, change):
    """Queries, keys and values become one tensor of ours, whose rows may fit by chance."""
    state, config = official_maskgit()
    start = "model.encoder.layer.1.attention.self."
    wrong = {f"{start}{name}.weight": torch.zeros(rows, 16) for name, rows in change.items()}
    name, rows = next(iter(change.items()))
    words = rf"{start}{name}.weight has shape \({rows}, 16\); expected \(16, 16\) by its config"
    with fails(WeightsError, "some.pt", words):
        from_official("maskgit", state | wrong, config, "some.pt")


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("llamagen_gpt", {"gpt_model": "GPT-B", "image_size": 48, "downsample_size": 0}),
        ("llamagen_gpt", {"block_size": 8}),
        ("nar", {"dim": 0}),
        ("var", {"depth": "many"}),
    ],
)
def test_configs_are_named_with_their_file(fails, family, change):
    state, config = MADE[family]()
    with fails(ConfigError, f"^some.pt: .*{family}"):
        from_official(family, state, {**config, **change}, "some.pt")


def test_open_magvit2_without_heads(fails):
    from tests.pretrained.test_open_magvit2_ar import params, tiny

    with fails(ConfigError, "^some.pt: not an official config of open_magvit2_ar"):
        from_official("open_magvit2_ar", tiny()[0], params(n_head=0), "some.pt")


def bare(family):
    if family == "gpstoken":
        from tests.pretrained.test_gpstoken import network

        return pretrained.to_official(network(), family)[0]
    from tests.pretrained.test_mar import state_of
    from tests.pretrained.test_xar import official_xar

    return official_xar()[0] if family == "xar" else state_of()


@pytest.mark.parametrize(
    ("family", "key", "shape"),
    [
        ("mar_vae", "encoder.conv_in.weight", ()),
        ("mar_vae", "encoder.conv_in.weight", (0, 12, 3, 3)),
        ("mar_vae", "quant_conv.weight", ()),
        ("gpstoken", "to_gps.1.weight", ()),
        ("xar", "z_proj_ln.weight", ()),
    ],
)
def test_sizes_of_bare_files_are_read_from_tensors_of_any_shape(
    tmp_path, fails, family, key, shape
):
    """Without a config a family reads its sizes from the weights: what has none is named."""
    torch.save({**bare(family), key: torch.zeros(shape)}, tmp_path / "bare.pt")
    with fails(WeightsError, "bare.pt", rf"{key} has shape \({str(shape)[1:-1]}\)"):
        pretrained.load(tmp_path / "bare.pt")


@pytest.mark.parametrize("shape", [(), (0, 16), (5,)])
def test_a_class_table_of_another_shape_is_no_mistake_of_the_config(fails, shape):
    from tests.pretrained.test_xar import official_xar

    state, config = official_xar()
    with fails(WeightsError, "some.pt", "class_emb.weight.* has shape"):
        from_official("xar", {**state, "class_emb.weight": torch.zeros(shape)}, config, "some.pt")


def test_bare_files_of_a_var_vqvae_are_its_own(tmp_path):
    """Sizes are those of the tensors, scales those of 256 pixels; no other family takes it."""
    family, state, config = official("var_vqvae")
    torch.save(state, tmp_path / "vae.pth")
    model = pretrained.open(tmp_path / "vae.pth")
    assert model.origin.family == family and model.config.encoder.conv.channels == config["ch"]
    assert model.config.quantizer.scales[-1] == 16
    assert [n for n, own in FAMILIES.items() if own.recognizes({}, state)] == [family]


def test_heads_of_unknown_sizes_are_not_guessed(tmp_path, fails):
    for tree in (IMAGES, {**CLIPS, "latent_shape": [4, 16, 16], "max_seq_len": 1024}):
        state, _ = official_nar(tree)
        torch.save(state, tmp_path / "bare.pt")
        with fails(ConfigError, "bare.pt: nar: the weights do not tell n_head"):
            pretrained.load(tmp_path / "bare.pt")
    state, _ = official_gpt()
    torch.save(state, tmp_path / "gpt.pt")
    with fails(ConfigError, "gpt.pt: llamagen_gpt: the weights do not tell n_head"):
        find.find(tmp_path / "gpt.pt")
