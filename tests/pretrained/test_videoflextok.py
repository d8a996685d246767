"""VideoFlexTok's files: the Hub's wrapper, both ways, and options of the authors' config."""

import copy

import pytest
import torch

from tests.support.clip_flow import clip_tree
from vistok.config import ConfigError, validate
from vistok.pretrained import from_official, to_official
from vistok.pretrained.tokenizers import videoflextok_config as classes
from vistok.pretrained.tokenizers.videoflextok import VideoFlexTok
from vistok.storage.weights import WeightsError
from vistok.tokenizer import Tokenizer, TokenizerConfig

FAMILY = VideoFlexTok()
TRUNK = {
    **{"norm_eps": 1e-5, "norm_affine": False, "qk_norm": True, "qk_norm_kind": "layernorm"},
    **{"qk_norm_affine": False, "attention_scale": "mup", "mlp": "swiglu", "bias": False},
    **{"mlp_hidden": "two_thirds", "init": "xavier", "branch_scale": "none"},
}


def made(chunks=None, network=(1, 1), **decoder) -> Tokenizer:
    tree = clip_tree({"token_std": "constant"}, **decoder)
    vae = {"latent_channels": 4, "channels": 4, "channel_mult": list(network), "blocks": 1}
    space = {"kind": "clip_vae", "weights": "own", "network": vae, "sample_posterior": True}
    tree |= {"input_space": space, "output_space": space, "frames": 5, "image_size": 16}
    tree["chunks"] = chunks
    for part in ("encoder", "decoder"):
        tree[part]["transformer"] = {**tree[part]["transformer"], **TRUNK}
    time = {"channels": 8, "max_period": 256.0, "scale_frequencies": True}
    tree["decoder"]["time"] = time
    torch.manual_seed(0)
    return Tokenizer(validate(TokenizerConfig, copy.deepcopy(tree)))


def official(**options):
    """(state, config) of a tokenizer that was trained here, without the Hub's wrapper."""
    return to_official(made(**options), "videoflextok")


def test_the_hubs_wrapper_both_ways(tmp_path):
    tokenizer = made(chunks={"frames": 5, "overlap": 1})
    state, config = to_official(tokenizer, "videoflextok")
    assert all(key.startswith("video_tokenizer.") for key in state)
    assert config["chunk_size"] == 5 and config["vae_video_sizes"] == [3, 8, 8]
    state["video_tokenizer.decoder.module_dict.dec_repa_head.out_proj.weight"] = torch.ones(2)
    tree = config["video_flex_tok"]
    head = {"_target_": classes.REPA_HEAD, "dim": 16, "dim_out": 4, "depth": 1}
    tree["decoder"]["module_dict"]["dec_repa_head"] = head
    for given in (config, {"config": config}):
        assert FAMILY.recognizes(given, ())
        again = from_official("videoflextok", state, given)
        assert again.config.chunks.overlap == 1 and again.config.frames == 5
        back, said = to_official(again)
        assert said == given and set(back) == set(state)
        assert all(torch.equal(back[key], state[key]) for key in state)
    again.save_pretrained(tmp_path / "ours")
    assert to_official(Tokenizer.from_pretrained(tmp_path / "ours"))[1] == given
    assert FAMILY.recognizes({}, state)  # its config stands in the header
    assert not FAMILY.recognizes({}, ["encoder.module_dict.enc_register_module.registers"])


def test_wrong_weights_are_one_line(fails):
    state, config = official()
    key = "decoder.module_dict.dec_prefix_masking.dropout_mask_token"
    with fails(WeightsError, f"missing {key}"):
        from_official("videoflextok", {k: v for k, v in state.items() if k != key}, config)
    key = "vae.vidtok.decoder.up.1.upsample.conv.weight"
    with fails(WeightsError, key, "by its config"):
        from_official("videoflextok", {**state, key: torch.zeros(2, 2)}, config)
    with fails(WeightsError, "unexpected x"):
        from_official("videoflextok", {**state, "x": torch.zeros(2)}, config)


def change(side, name, **options):
    return lambda tree: tree[side]["module_dict"][name].update(options)


NESTED, NOISE = "dec_nested_dropout", "flow_matching_noise_module"
SIGHTS = {
    **{"prefix2prefix": "full", "prefix2nonprefix": "none", "nonprefix2prefix": "full"},
    "nonprefix2nonprefix": "causal",
}
FLEXIBLE = {
    "mask_mode": "flexible_time_block_causal_last",
    "cross_timestep_attention_config": SIGHTS,
}
OPTIONS = {
    "masks": change("encoder", "enc_seq_packer", mask_mode="time_block_causal"),
    "full": change("encoder", "enc_seq_packer", mask_mode="full"),
    "flexible": change("decoder", "dec_seq_packer", **FLEXIBLE),
    "halved": change("decoder", NESTED, size_sampling_mode="halved"),
    "roundup": change("decoder", NESTED, size_sampling_mode="pow2_roundup"),
    "zipf": change("decoder", NESTED, size_sampling_mode="zipf", zipf_a=0.7),
    "each": change("decoder", NESTED, _target_=classes.EACH_NESTED, size_sampling_mode="uniform"),
    "first": change(
        "decoder", NESTED, _target_=classes.EACH_NESTED, size_sampling_mode=["pow2", "uniform"]
    ),
    "zero": lambda t: t["decoder"]["module_dict"].update(
        dec_latent_dropout={"_target_": classes.ZERO, "dropout_prob": 0.2}
    ),
    "no prefix": lambda t: t["decoder"]["module_dict"].pop("dec_prefix_masking"),
    "one prefix": lambda t: t[NOISE].update(prefix_len=2, keep_prefix_prob=0.3),
    "noise": lambda t: t[NOISE].update(cond_sigma_range=[0.1, 0.2], cond_noise_prob=1.0),
    "plain noise": lambda t: (
        t[NOISE].update(_target_=classes.NOISE, ln=False, mode_scale=0.3),
        *map(t[NOISE].pop, ("prefix_len", "keep_prefix_prob", "cond_sigma_range")),
        t[NOISE].pop("cond_noise_prob"),
    ),
    "tables": change("decoder", "dec_registers_posemb_module", posemb_type="learnable_prod"),
    "taps": change("decoder", "dec_transformer", intermediate_layers=[1]),
}
REFUSED = {
    "class": (lambda t: t["vae"].update(_target_="os.system"), "names the class os.system"),
    "vae": (lambda t: t["vae"].update(tokenizer_id="vidtok_fsq"), "tokenizer_id=vidtok_fsq"),
    "chunks of the vae": (lambda t: t["vae"].update(chunk_size=16), "vae.chunk_size"),
    "zero noise": (lambda t: t["pipeline"].update(zero_noise=True), "zero_noise"),
    "sizes": (change("encoder", "enc_register_module", n_eval=2), "n_eval"),
    "few": (change("encoder", "enc_register_module", size_sampling_mode="k=1-2"), "k=4"),
    "one kind": (change("decoder", "dec_seq_packer", per_subseq_embs=False), "per_subseq_embs"),
    "single": (
        change("decoder", "dec_latent_dropout", replace_with_single_token=True),
        "replace_with_single_token",
    ),
    "modes": (change("decoder", NESTED, size_sampling_mode="gauss"), "size_sampling_mode=gauss"),
    "steps": (
        change(
            "decoder", NESTED, _target_=classes.EACH_NESTED,
            size_sampling_mode=["pow2", "uniform", "uniform_pow2"],
        ),
        "one mode, or two",
    ),
    "truncated": (
        change("decoder", NESTED, _target_=classes.NESTED.replace("Masked", "Truncated")),
        "TruncatedNestedDropout",
    ),
    "patches": (change("encoder", "enc_patch_emb", patch_sizes=[2, 2]), "patch_sizes"),
    "sights": (
        change("encoder", "enc_seq_packer", **{**FLEXIBLE, "cross_timestep_attention_config": {}}),
        "prefix2prefix",
    ),
    "argument": (lambda t: t[NOISE].update(shift=2), f"{NOISE}.shift"),
    "size": (lambda t: t["constants"].pop("frames"), "constants.frames"),
    "mup": (change("decoder", "dec_to_patches", use_mup_readout=True), "use_mup_readout"),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_the_official_code_are_taken(name):
    _, tree = official()
    before = FAMILY.config(tree)
    OPTIONS[name](tree)
    config = validate(TokenizerConfig, FAMILY.config(tree))
    assert FAMILY.config(tree) != before
    again = validate(TokenizerConfig, FAMILY.config(FAMILY.official(config)))
    assert again == config


@pytest.mark.parametrize("name", REFUSED)
def test_other_options_are_refused_by_name(name, fails):
    _, tree = official()
    step, said = REFUSED[name]
    step(tree)
    with fails(ConfigError, "videoflextok", said):
        validate(TokenizerConfig, FAMILY.config(tree))


def test_the_order_of_modules_says_which_vector_wins(fails):
    state, tree = official(overwrites=["null", "missing", "given"])
    named = tree["decoder"]["module_dict"]
    assert list(named)[2:5] == ["dec_latent_dropout", NESTED, "dec_prefix_masking"]
    again = from_official("videoflextok", state, tree)
    assert again.config.decoder.overwrites == ("null", "missing", "given")
    table = named.pop("dec_registers_posemb_module")
    named["dec_registers_posemb_module"] = table
    with fails(ConfigError, "before dec_registers_posemb_module"):
        FAMILY.config(tree)
