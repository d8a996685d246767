"""Official configs of wrong types: one line with the source, never a traceback."""

from __future__ import annotations

import copy
import json

import pytest
from safetensors.torch import save_file

from tests.support.official import official
from vistok.config import UserError
from vistok.pretrained import from_official, load
from vistok.pretrained.table import FAMILIES

WRONG = (None, "many", [], {}, -1, 1.5)
VQ = ("model", "vq_model")
PLACES = {
    "titok": (
        ("model",), VQ, ("dataset",), ("dataset", "preprocessing", "crop_size"),
        (*VQ, "num_latent_tokens"), (*VQ, "vit_enc_model_size"), (*VQ, "vit_enc_patch_size"),
        (*VQ, "token_size"), (*VQ, "use_l2_norm"),
        ("constants", "size_table", "small"),
        ("constants", "pixel_decoder", "channel_mult"),
    ),
    "tatitok": (("model",), (*VQ, "text_context_length"), (*VQ, "text_embed_dim")),
    "one_d_piece": ((*VQ, "strict_length_assertion"),),
    "maskgit_vqgan": (
        ("vqgan",), ("quantizer",), ("vqgan", "channel_mult"), ("vqgan", "resolution"),
        ("quantizer", "num_embeddings"), ("quantizer", "commitment_cost"),
    ),
    "retok": tuple(
        (key,)
        for key in (
            *("width", "heads", "layers_dec", "sizes", "num_latent_tokens", "min_tokens", "model"),
            *("multi_level_query_init", "adaptive_gn", "distill_depth", "out_inner_dim", "rot"),
            *("patch_downsample", "encoder_ch_mult", "z_channels", "use_rope", "encoder_size"),
        )
    ),
    "instella": tuple(
        (key,)
        for key in (
            *("in_channels", "encoder_layers", "encoder_head_dim", "encoder_num_heads"),
            *("patch_size", "num_latent_tkns", "axes_dims_rope", "downsample_idx", "upsample_idx"),
            *("codebook_size", "train_temp", "use_repa", "repa_index", "scale_pixels", "image_hw"),
        )
    ),
    "llamagen": tuple(
        (key,)
        for key in (
            *("image_size", "ch", "ch_mult", "encoder_ch_mult", "num_res_blocks", "z_channels"),
            *("norm_type", "norm_eps", "dropout_p", "resamp_with_conv", "codebook_l2_norm"),
            *("codebook_embed_dim", "commit_loss_beta", "entropy_loss_ratio"),
        )
    ),
    "var_vqvae": tuple(
        (key,)
        for key in (
            *("ch", "ch_mult", "num_res_blocks", "vocab_size", "z_channels", "v_patch_nums"),
            *("dropout", "beta", "using_znorm", "quant_conv_ks", "quant_resi", "share_quant_resi"),
            "default_qresi_counts",
        )
    ),
    "xqgan": (
        ("backbone",), ("backbone", "embed_dim"), ("backbone", "image_size"),
        ("backbone", "drop_path_rate"), ("decoder_backbone",), ("num_latent_tokens",),
        ("product_quant",), ("v_patch_nums",), ("codebook_size",), ("codebook_embed_dim",),
        ("abs_pos_embed",), ("commit_loss_beta",), ("share_quant_resi",), ("lfq",), ("alpha",),
        ("beta",), ("delta",), ("anneal_start",), ("end_ratio",), ("enc_type",), ("finetune",),
        ("model_args",), ("enc_tuning_method",),
    ),
    "flextok": (
        ("vae",), ("vae", "_target_"), ("vae", "scaling_factor"), ("encoder",), ("decoder",),
        ("encoder", "module_dict"), ("encoder", "module_dict", "enc_patch_emb", "patch_sizes"),
        ("encoder", "module_dict", "enc_register_module", "n_max"),
        ("encoder", "module_dict", "enc_transformer", "dim"),
        ("encoder", "module_dict", "enc_transformer", "head_dim"),
        ("encoder", "module_dict", "enc_transformer", "act_layer"),
        ("encoder", "module_dict", "enc_transformer", "norm_layer"),
        ("decoder", "module_dict", "dec_registers_posemb_module", "max_sizes"),
        ("decoder", "module_dict", "dec_seq_packer", "mask_mode"),
        ("decoder", "module_dict", "dec_time_embedder", "max_timestep"),
        ("decoder", "module_dict", "dec_transformer", "intermediate_layers"),
        ("regularizer", "levels"), ("flow_matching_noise_module",), ("constants", "vae"),
    ),
    "xqgan-folded": (("codebook_drop",), ("start_drop",), ("v_patch_nums",), ("share_quant_resi",)),
    "xqgan-binary": (("entropy_loss_ratio",), ("scale",), ("soft_entropy",)),
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_values_of_wrong_types_are_one_line(name):
    family, state, config = official(name)
    for place in PLACES[name]:
        for value in WRONG:
            changed = copy.deepcopy(config)
            inner = changed
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = value
            for own in FAMILIES.values():
                own.recognizes(changed, state)
            try:
                from_official(family, state, changed, "somewhere")
            except UserError as error:
                assert "\n" not in str(error) and len(str(error)) < 1000, (place, value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"is_legacy": "false"}, "is_legacy: got 'false'; expected true or false"),
        ({"use_l2_norm": 1}, "use_l2_norm: got 1; expected true or false"),
        ({"quantize_mode": "VAE"}, "quantize_mode: got 'VAE'; expected vq or vae"),
    ],
)
def test_switches_are_not_guessed(fails, change, words):
    family, state, config = official("titok-pixel")
    config = {**config, "model": {"vq_model": {**config["model"]["vq_model"], **change}}}
    with fails(UserError, words):
        from_official(family, state, config, "somewhere")


@pytest.mark.parametrize("text", ["[1]", "3", '"a"', "null", '{"model": [1]}', "{"])
def test_a_config_file_of_another_shape(tmp_path, fails, text):
    _, state, config = official("titok-pixel")
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(text)
    with fails(UserError, "config.json|official config|no family recognizes"):
        load(tmp_path)
    with fails(UserError, "config"):
        load(tmp_path, family="titok")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load(tmp_path).origin.family == "titok"
