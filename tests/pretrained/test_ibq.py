"""IBQ as it is released: a Lightning checkpoint with averaged weights; options, damage, export."""

from __future__ import annotations

import pytest
import torch

from vistok import pretrained
from vistok.config import ConfigError, validate
from vistok.pretrained import from_official, to_official
from vistok.pretrained.tokenizers.seed_voken import EMA
from vistok.storage.weights import WeightsError
from vistok.tokenizer import Tokenizer, TokenizerConfig

NETWORK = {"double_z": False, "z_channels": 8, "resolution": 16, "in_channels": 3, "out_ch": 3,
           "ch": 32, "ch_mult": [1, 1, 2], "num_res_blocks": 1, "attn_resolutions": [8, 4],
           "dropout": 0.0}  # fmt: skip


def settings(**changes) -> dict:
    """Arguments of the Lightning module, as its YAML has them."""
    network = NETWORK | changes.pop("network", {})
    loss = {"disc_start": 0, "entropy_loss_weight": 0.05}
    given = {"ddconfig": network, "embed_dim": 6, "n_embed": 32, "use_entropy_loss": True,
             "lossconfig": {"target": "some.Class", "params": loss}, "l2_normalize": True,
             "cosine_similarity": False, "learning_rate": 1e-4}  # fmt: skip
    return given | changes


@pytest.fixture(scope="module")
def plain() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    tree = pretrained.FAMILIES["ibq"].config(settings())
    state, _ = to_official(Tokenizer(validate(TokenizerConfig, tree)), "ibq")
    return {key: torch.randn_like(tensor) for key, tensor in state.items()}


def test_attention_follows_the_counter(plain):
    held = {key.rsplit(".attn.", 1)[0] for key in plain if ".attn." in key}
    assert held == {"encoder.down.1", "encoder.down.2", "decoder.up.1", "decoder.up.2"}
    given = settings(network={"attn_resolutions": []})
    tree = pretrained.FAMILIES["ibq"].config(given)
    state, official = to_official(Tokenizer(validate(TokenizerConfig, tree)), "ibq")
    assert not any(".attn." in key for key in state) and "encoder.mid.attn_1.q.weight" in state
    assert official["ddconfig"]["attn_resolutions"] == []


def test_averaged_weights_are_those_that_are_read(plain):
    averages = {f"{EMA}{key.replace('.', '')}": tensor + 1 for key, tensor in plain.items()}
    state = {**plain, **averages, "loss.discriminator.main.0.weight": torch.zeros(1)}
    tokenizer = from_official("ibq", state, settings())
    assert torch.equal(tokenizer.quantizer.codebook, plain["quantize.embedding.weight"] + 1)
    exported, _ = to_official(tokenizer)
    assert set(exported) == set(state)
    del state[f"{EMA}quant_convbias"]
    with pytest.raises(WeightsError, match=f"missing {EMA}quant_convbias; expected averages"):
        from_official("ibq", state, settings())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"network": {"double_z": True}}, "double_z=true: that is a VAE's encoder"),
        ({"network": {"give_pre_end": True}}, "give_pre_end=true: .*; expected false"),
        ({"network": {"attn_resolutions": 8}}, "attn_resolutions=8; expected a list"),
        ({"remap": "used.npz"}, "remap=used.npz: .*; expected null"),
        ({"beta": None}, "beta=None; expected a number"),
        ({"network": {"in_channels": 1}}, "in_channels=1; expected 3"),
        ({"network": {"resolution": [16, 32]}}, "resolution=.*; expected one whole number"),
        ({"ddconfig": {"colour": 1}}, "ddconfig: .*colour.* is not known"),
        ({"lossconfig": {"params": {"entropy_loss_weight": "x"}}}, "expected a number"),
    ],
)
def test_what_it_cannot_take_is_one_line(plain, changes, said):
    with pytest.raises(ConfigError, match=said) as error:
        from_official("ibq", plain, settings(**changes))
    assert "\n" not in str(error.value)


def test_a_missing_and_a_strange_tensor_are_named(plain):
    rest = {key: tensor for key, tensor in plain.items() if key != "quant_conv.weight"}
    with pytest.raises(WeightsError, match=r"quant_conv\.weight"):
        from_official("ibq", rest, settings())
    with pytest.raises(WeightsError, match=r"encoder\.strange"):
        from_official("ibq", {**plain, "encoder.strange": torch.zeros(1)}, settings())


@pytest.mark.parametrize(
    ("changes", "weights"),
    [
        ({"beta": 0.7}, (1.0, 0.7, 0.05, -0.05)),
        ({"sample_minimization_weight": 0.7}, (1.0, 0.25, 0.035, -0.05)),
        ({"sample_minimization_weight": 0.0, "batch_maximization_weight": 0.0}, (1, 0.25, 0, 0)),
        ({"lossconfig": {"params": {"quant_loss_weight": 2.0}}}, (2.0, 0.5, 1.0, -1.0)),
        ({"use_entropy_loss": False}, (1.0, 0.25, None, None)),
    ],
)
def test_weights_of_losses_come_and_go(changes, weights):
    family, given = pretrained.FAMILIES["ibq"], settings(**changes)
    tokenizer = Tokenizer(validate(TokenizerConfig, family.config(given)))
    named = ("quantize", "codebook", "entropy_sample", "entropy_batch")
    found = tokenizer.quantizer.loss_weights
    assert [found.get(name) for name in named] == pytest.approx(weights)
    again = family.config(family.official(tokenizer.config))["quantizer"]["loss_weights"]
    if "params" not in changes.get("lossconfig", {}):  # both weights of entropies fold into one
        assert again == pytest.approx(found)
    assert again["quantize"] == found["quantize"]


def test_levels_without_convolutions_between_them_have_no_keys():
    given = settings(network={"resamp_with_conv": False})
    tree = pretrained.FAMILIES["ibq"].config(given)
    state, official = to_official(Tokenizer(validate(TokenizerConfig, tree)), "ibq")
    assert not any("sample.conv" in key for key in state)
    assert official["ddconfig"]["resamp_with_conv"] is False
    from_official("ibq", state, given)
