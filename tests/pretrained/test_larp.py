"""LARP's tokenizer comes in and goes out: all options, files, and what is refused."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from safetensors.torch import save_file

from vistok import pretrained
from vistok.config import ConfigError, UserError, validate
from vistok.pretrained import FAMILIES, from_official, to_official
from vistok.storage.weights import WeightsError
from vistok.tokenizer import Tokenizer, TokenizerConfig

LARP = FAMILIES["larp"]
VQ = {"codebook_size": 10, "l2_normalized": True, "stochastic": True, "stochastic_temperature": 0.1}

LAST = "final_layer.linear.weight"


def config(norm="none", regularizer=None, **options):
    """An official config of clips of 4 frames of 8 pixels."""
    regularizer = regularizer or {"name": "vq", "args": VQ}
    inner = {"bottleneck_dim": 4, "norm": norm, "regularizer": regularizer}
    sizes = {"input_size": 8, "frame_num": 4, "bottleneck_token_num": 5, "patch_size": 4}
    sizes |= {"temporal_patch_size": 2, "decoder_temporal_patch_size": 2, "decoder_patch_size": 4}
    for side, width in (("encoder", 8), ("decoder", 16)):
        sizes |= {f"{side}_hidden_size": width, f"{side}_num_heads": 2, f"{side}_depth": 1}
    bottleneck = {"name": "bottleneck", "args": inner}
    return {"bottleneck": bottleneck, "prior_model": {"name": "none"}, **sizes, **options}


def vq(**changes):
    return config(regularizer={"name": "vq", "args": {**VQ, **changes}})


LEARNED = config(
    norm="ln_nd",
    **{f"learned_{one}": True for one in ("encoder_patch_pe", "decoder_latent_pe")},
    learned_decoder_patch_query_embed=True,
    encoder_query_gaussian_init=False,
    **{f"use_encoder_{one}_token_type_embed": True for one in ("patch", "latent_query")},
    use_decoder_latent_token_type_embed=True,
    temporal_patch_size=1,
    decoder_temporal_patch_size=1,
)
OPTIONS = {
    "plain": config(),
    "learned": LEARNED,
    "fixed": config(
        norm="bn_b",
        learned_encoder_latent_query_embed=False,
        encoder_query_gaussian_init=False,
        latent_pe_scale_factor=100,
        use_decoder_patch_query_token_type_embed=True,
        use_encoder_patch_token_type_embed=True,
    ),
    "stored": vq(stochastic_temperature=-1.0),
    "nearest": vq(stochastic=False, l2_normalized=False, entropy_loss_weight=0.1),
    "moments": config(regularizer={"name": "skl", "args": {"codebook_size": 10}}),
    "batch": config(norm="bn_bn", query_init_std=0.5),
    "wide": config(norm="ln_d", **{"decoder_hidden_size": 8}),
}


def official(given: dict) -> dict[str, torch.Tensor]:
    """Random weights in the official layout; its fixed tables hold what they must."""
    torch.manual_seed(0)
    tokenizer = Tokenizer(validate(TokenizerConfig, LARP.config(given)))
    with torch.no_grad():
        for parameter in tokenizer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return to_official(tokenizer, "larp")[0]


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("name", OPTIONS)
def test_both_ways_bit_for_bit(name):
    given = OPTIONS[name]
    state = official(given) | {"prior_model.pos_emb": torch.rand(1, 5, 4)}
    tokenizer = from_official("larp", state, given)
    back, written = to_official(tokenizer)
    assert equal(back, state) and written == given
    ours = LARP.official(tokenizer.config)  # as written for a model that was trained here
    assert LARP.config(ours) == LARP.config(given)
    clip = torch.rand(1, 3, 4, 8, 8)
    assert tokenizer.decode(tokenizer.encode(clip)).shape == clip.shape


def test_files_of_the_hub_and_of_the_trainer(tmp_path):
    given = config()
    state = official(given)
    model = from_official("larp", state, given)
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub/config.json").write_text(json.dumps(given))
    save_file(state, tmp_path / "hub/model.safetensors")
    compiled = {f"_orig_mod.{key}": tensor for key, tensor in state.items()}
    whole = {"name": "larp_tokenizer", "args": given, "sd": compiled}
    torch.save({"model": whole, "epoch": 3}, tmp_path / "epoch.pth")
    (tmp_path / "config.json").write_text(json.dumps({"model": {"args": given}}))
    for path in (tmp_path / "hub", tmp_path / "epoch.pth"):
        opened = pretrained.open(path, expect="tokenizer")
        assert opened.origin.family == "larp"
        assert equal(opened.state_dict(), model.state_dict())


def test_means_and_log_variances_stand_by_turns():
    state = official(OPTIONS["moments"])
    tokenizer = from_official("larp", state, OPTIONS["moments"])
    rows = state["bottleneck.in_linear.weight"]
    assert torch.equal(tokenizer.encoder.proj.weight[:4], rows[0::2])
    assert torch.equal(tokenizer.encoder.proj.weight[4:], rows[1::2])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (vq(entropy_loss_weight=0.1), r"entropy_loss_weight=0\.1 with stochastic=true"),
        (vq(l2_normalized=False), "stochastic=true with l2_normalized=false"),
        (vq(codebook_loss_weight=0), "codebook_loss_weight=0: the codebook learns by that loss"),
        (config(decoder_patch_size=2), "decoder_patch_size=2 with patch_size=4"),
        (config(in_channels=1), "in_channels=1; expected 3"),
        (config(decoder_name="transformer_encoder_fused"), "decoder_name='transformer_encoder_f"),
        (config(norm="gn"), r"bottleneck\.args\.norm='gn'; expected one of none, no, ln_d"),
        (config(regularizer={"name": "none"}), r"regularizer\.name='none'; expected vq or skl"),
        (config("ln_d", {"name": "skl"}), r"norm='ln_d' with .*name='skl'"),
        (config(learned_encoder_patch_pe="no"), "learned_encoder_patch_pe: got 'no'"),
    ],
)
def test_what_is_refused_is_named(fails, given, words):
    with fails(ConfigError, words):
        LARP.config(given)


@pytest.mark.parametrize("key", ["encoder_patch_pe", "decoder_latent_pe", "x_embedder.proj.weight"])
def test_wrong_tensors_are_named(fails, key):
    state = official(config())
    for wrong in (state[key] + 0.1 if "pe" in key[-2:] else state[key][1:], None):
        broken = {k: v for k, v in {**state, key: wrong}.items() if v is not None}
        with fails(WeightsError, "^some.pt: .*" + key):
            from_official("larp", broken, config(), "some.pt")
    halves = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    assert from_official("larp", halves, config()).origin.types[LAST] == "torch.float16"


def test_values_of_wrong_types_are_one_line():
    given = config()
    state = official(given)
    places = [(key,) for key in given] + [
        ("bottleneck", "args", k) for k in ("norm", "regularizer")
    ]
    places += [("bottleneck", "args", "regularizer", "args", key) for key in VQ]
    for *outer, last in places:
        for value in (None, "many", [], {}, -1, 1.5):
            changed = copy.deepcopy(given)
            inner = changed
            for key in outer:
                inner = inner[key]
            inner[last] = value
            try:
                LARP.recognizes(changed, state)
                from_official("larp", state, changed, "somewhere")
            except UserError as error:
                assert "\n" not in str(error) and len(str(error)) < 1000, (last, value)


def test_settings_without_a_place_are_refused(fails):
    tree = LARP.config(config())
    for change, words in (
        ({"encoder": {"kind": "vit", "latents": {"slot_projection": True}}}, "slot_projection"),
        ({"decoder": {"kind": "vit", "missing": "drop"}}, r"decoder\.missing=drop"),
        ({"quantizer": {"kind": "fsq"}}, r"quantizer\.kind=fsq"),
    ):
        changed = copy.deepcopy(tree)
        for part, own in change.items():
            for key, value in own.items():
                if isinstance(value, dict):
                    changed[part][key] |= value
                elif value == "fsq":
                    changed[part] = {"kind": "fsq"}
                else:
                    changed[part][key] = value
        with fails(ConfigError, words):
            LARP.official(validate(TokenizerConfig, changed))
