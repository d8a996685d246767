"""Tiny models of the released families in their official layouts, with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.support.flextok_family import tree
from vistok.config import validate
from vistok.pretrained import to_official
from vistok.pretrained.table import FAMILIES
from vistok.tokenizer import Tokenizer, TokenizerConfig

SIZES = {
    "small": {"width": 32, "layers": 1, "heads": 2},
    "base": {"width": 32, "layers": 2, "heads": 2},
}
PIXELS = {"channel_mult": [1, 1, 2], "num_resolutions": 3, "dropout": 0.0, "hidden_channels": 32,
          "num_channels": 3, "num_res_blocks": 1, "resolution": 16, "z_channels": 8}  # fmt: skip
CONSTANTS = {"size_table": SIZES, "proxy_codebook": 24, "pixel_decoder": PIXELS}
COMMON = {"token_size": 4, "vit_enc_model_size": "small", "vit_dec_model_size": "base",
          "vit_enc_patch_size": 4, "vit_dec_patch_size": 4, "num_latent_tokens": 4,
          "codebook_size": 16, "use_l2_norm": True, "commitment_cost": 0.25}  # fmt: skip
TEXT = {"text_context_length": 5, "text_embed_dim": 6}
ONE_STAGE = {"finetune_decoder": False, "is_legacy": False}
MODELS = {
    "titok": COMMON,
    "titok-stage1": {**COMMON, "finetune_decoder": False},
    "titok-pixel": {**COMMON, **ONE_STAGE, "use_l2_norm": False},
    "titok-vae": {**COMMON, **ONE_STAGE, "quantize_mode": "vae"},
    "tatitok": {**COMMON, **ONE_STAGE, **TEXT, "clustering_vq": True},
    "one_d_piece": {**COMMON, "strict_length_assertion": False},
}

CNN = {"image_size": 16, "ch": 8, "num_res_blocks": 1, "norm_groups": 4, "z_channels": 8,
       "encoder_ch_mult": [1, 2], "decoder_ch_mult": [1, 2], "codebook_size": 16,
       "codebook_embed_dim": 4}  # fmt: skip
GRID = {"enc_type": "dinov2", "dec_type": "dinov2", "codebook_size": 16, "codebook_embed_dim": 4,
        "v_patch_nums": [2], "num_latent_tokens": 4, "abs_pos_embed": True, "product_quant": 1,
        "backbone": {"image_size": 24, "patch_size": 8, "embed_dim": 32, "depth": 2,
                     "num_heads": 2}}  # fmt: skip
FLEXTOK = {
    **{"image_size": 16, "vae_latent_channels": 4, "vae_block_out_channels": [8, 8]},
    **{"vae_layers_per_block": 1, "vae_norm_num_groups": 4, "vae_scaling_factor": 0.7},
    **{"enc_dim": 16, "enc_depth": 1, "dec_dim": 16, "dec_depth": 2, "head_dim": 8},
    **{"mlp_ratio": 4.0, "patch_size": 2, "posemb_grid": 4, "n_registers": 4, "qk_norm": True},
    **{"fsq_levels": [5, 4], "time_freq_dim": 8, "per_subseq_adaln": True, "gated_mlp": "SiLU"},
    **{"enc_mask_mode": "causal_last", "dec_patch_posemb": "sincos", "posterior": "mode"},
    "norm": "eps 1e-5",
}
QFORMER = {"use_attn": False, "width": 8, "heads": 2, "layers_enc": 1, "layers_dec": 2,
           "num_latent_tokens": 4, "min_tokens": 1, "multi_level_query_init": True,
           "distill_depth": 1, "out_inner_dim": 6}  # fmt: skip
VAR = {"ch": 32, "ch_mult": [1, 2], "num_res_blocks": 1, "vocab_size": 16, "z_channels": 4,
       "v_patch_nums": [1, 2, 4]}  # fmt: skip
TRUNKS = {"encoder_layers": 2, "encoder_head_dim": 8, "encoder_num_heads": 2, "patch_size": 4,
          "num_latent_tkns": 3, "axes_dims_rope": [2, 2, 4], "downsample_idx": [0],
          "decoder_layers": 3, "decoder_head_dim": 8, "decoder_num_heads": 3, "upsample_idx": [1],
          "codebook_size": 6, "scale_pixels": 64, "image_hw": [16, 24]}  # fmt: skip
COSMOS = {"channels": 8, "channels_mult": [1, 2, 1], "num_res_blocks": 1, "resolution": 32,
          "attn_resolutions": [4], "z_channels": 4, "levels": [5, 3], "embedding_dim": 2,
          "patch_size": 2, "spatial_compression": 8, "temporal_compression": 4}  # fmt: skip
COSMOS_IMAGE = {"channels": 32, "channels_mult": [1, 2, 1], "num_res_blocks": 1, "resolution": 32,
                "attn_resolutions": [8], "z_channels": 4, "patch_size": 2,
                "spatial_compression": 8}  # fmt: skip
COSMOS_DI = {**COSMOS_IMAGE, "levels": [5, 3], "embedding_dim": 2}
FLAT = {
    "cosmos": COSMOS,
    "cosmos_image": COSMOS_DI,
    "cosmos_image-residual": {**COSMOS_DI, "quantizer": "RESFSQ", "num_quantizers": 2},
    "cosmos_image-product": {**COSMOS_DI, "num_codebooks": 2, "embedding_dim": 4},
    "cosmos_image-vq": {
        **COSMOS_IMAGE,
        "quantizer": "VQ",
        "embedding_dim": 4,
        "num_embeddings": 16,
    },
    "cosmos_image-lfq": {
        **COSMOS_IMAGE,
        "quantizer": "LFQ",
        "embedding_dim": 4,
        "codebook_dim": 4,
        "codebook_size": 16,
        "entropy_loss": True,
    },
    "cosmos_image-ae": {**COSMOS_IMAGE, "latent_channels": 5},
    "cosmos_image-vae": {**COSMOS_IMAGE, "latent_channels": 5, "formulation": "VAE", "z_factor": 2},
    "cosmos-legacy": {**COSMOS, "legacy_mode": True, "z_factor": 2, "patch_method": "rearrange"},
    "instella": TRUNKS,
    "instella-plain": {**TRUNKS, "downsample_idx": [], "upsample_idx": [], "scale_pixels": None},
    "instella-twice": {**TRUNKS, "upsample_idx": [2, 0], "image_hw": [16, 32], "train_temp": 1.0},
    "instella-repa": {**TRUNKS, "use_repa": True, "repa_index": 1, "repa_dim": 1024},
    "xqgan": {**GRID, "alpha": 1.0, "beta": 0.1, "delta": 8},
    "xqgan-own": {**GRID, "abs_pos_embed": False, "codebook_l2_norm": False},
    "xqgan-folded": {**GRID, "product_quant": 2, "v_patch_nums": [1, 2], "codebook_drop": 0.1},
    "xqgan-binary": {**GRID, "product_quant": 2, "v_patch_nums": [1, 2], "lfq": True},
    "llamagen": {**CNN, "entropy_loss_ratio": 0.1},
    "llamagen-plain": {**CNN, "codebook_l2_norm": False, "resamp_with_conv": False},
    "var_vqvae": VAR,
    "var_vqvae-shared": {**VAR, "share_quant_resi": 1, "quant_conv_ks": 1, "using_znorm": True},
    "var_vqvae-plain": {**VAR, "quant_resi": 0.0, "beta": 0.5},
    "retok": {**CNN, **QFORMER, "adaptive_gn": True, "d2s_up": True, "rot": True},
    "retok-gigatok": {**CNN, **QFORMER, "min_tokens": None, "learnable_2d_query_init": True},
    "retok-unpadded": {**CNN, **QFORMER, "min_tokens": 4, "codebook_l2_norm": False, "rot": True},
    "retok-qk_norm": {**CNN, **QFORMER, "use_qk_norm": True, "distill_depth": None},
}


def official(name):
    """(family, state, config) of a tiny model with random weights.

    Args:
        name: one of ours, or the config of a LlamaGen.
    """
    if isinstance(name, dict):
        family, config = "llamagen", name
    elif name == "flextok":
        family, config = name, tree(FLEXTOK)
    elif name in FLAT:
        family, config = name.split("-")[0], FLAT[name]
    elif name == "maskgit_vqgan":
        config = {"vqgan": PIXELS, "quantizer": {"num_embeddings": 24, "embedding_dim": 8}}
        family = name
    else:
        family = name.split("-")[0]
        config = {
            "model": {"vq_model": MODELS[name]},
            "dataset": {"preprocessing": {"crop_size": 16}},
            "constants": CONSTANTS,
        }
    torch.manual_seed(0)
    tokenizer = Tokenizer(validate(TokenizerConfig, FAMILIES[family].config(config)))
    state, _ = to_official(tokenizer, family)
    numbers = {k: torch.randn_like(v) if v.is_floating_point() else v for k, v in state.items()}
    return family, numbers, config


def write_shards(folder: Path, state: dict[str, torch.Tensor]) -> dict:
    """Weights in two files and their index, as transformers shards them; the index."""
    keys = sorted(state)
    parts = {"one.safetensors": keys[::2], "two.safetensors": keys[1::2]}
    for name, own in parts.items():
        save_file({k: state[k] for k in own}, folder / name)
    index = {"weight_map": {k: name for name, own in parts.items() for k in own}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return index
