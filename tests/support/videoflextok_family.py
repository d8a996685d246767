"""The official config tree of a VideoFlexTok recording, whose config is flat, and a VAE for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.support.flextok_family import _mlp, _norm
from vistok.frozen.vidtok import VidTokConfig
from vistok.pretrained.tokenizers import videoflextok_config as classes

PREFIX = "decoder.module_dict.dec_prefix_masking.dropout_mask_token"
_TABLE = "decoder.module_dict.dec_registers_posemb_module.posembs"


def network(config: dict[str, Any]) -> VidTokConfig:
    """A VidTok with the recording's latents, which the recording leaves out."""
    return VidTokConfig(
        latent_channels=config["latent_channels"], channels=4, channel_mult=(1, 1, 1), blocks=1
    )


def vae_state(config: dict[str, Any], head: str = "") -> dict[str, Tensor]:
    """Random weights of that network under the official names."""
    torch.manual_seed(3)
    state = network(config).build().state_dict()
    return {f"{head}vae.vidtok.{key}": tensor.clone() for key, tensor in state.items()}


def tree(config: dict[str, Any], weights: dict[str, Tensor]) -> dict[str, Any]:
    """The tree that the official code would have been built from.

    Args:
        weights: say what the config does not: the length of the registers' table, and whether a
            vector hides the registers of given steps.
    """
    levels, width, enc = len(config["fsq_levels"]), config["dec_dim"], config["enc_dim"]
    count, side = config["n_registers"], config["patch_size"]
    vae, sides = network(config), config["latent_size"]
    sides = [sides, sides] if isinstance(sides, int) else list(sides)
    window = side if isinstance(side, list) else [1, side, side]
    norm = _norm(str(config.get("norm", "")))
    trunk = {
        "_target_": classes.TRUNK,
        "head_dim": config["head_dim"],
        "mlp_ratio": config.get("mlp_ratio", 4.0),
        "qk_norm": config.get("qk_norm", True),
        **_mlp(str(config.get("gated_mlp", True))),
        "norm_layer": norm,
    }
    trunk["norm_layer"] = {**norm, "_target_": classes.TREE.norms[0]}
    patches = {
        "_target_": classes.PATCHES,
        "patch_sizes": window,
        "channels_in": config["latent_channels"],
        "flatten_patches": False,
    }
    table = {"_target_": classes.POSITIONS, "posemb_type": config.get("posemb", "learnable_sum")}
    cells = {**table, "max_sizes": [config["posemb_size"]] * 3}
    packer = {
        "_target_": classes.PACKER,
        "cross_timestep_attention_config": config.get("cross_timestep_attention_config"),
    }
    head = {"norm_layer": trunk["norm_layer"]}
    decoder = {
        "dec_from_latents": {"_target_": classes.LINEAR, "dim_in": levels, "dim": width},
        "dec_registers_posemb_module": {
            **{**table, "dim": width, "max_sizes": [weights[_TABLE].shape[-1]] * 2},
        },
        "dec_nested_dropout": {"_target_": classes.NESTED, "dim": width},
        "dec_prefix_masking": {"_target_": classes.PREFIX, "dim": width},
        "dec_latent_dropout": {"_target_": classes.NULL, "dim": width},
        "dec_noise_patch_emb": {**patches, "dim": width},
        "dec_patches_posemb_module": {**cells, "dim": width},
        "dec_seq_packer": {
            **{**packer, "mask_mode": config["dec_mask_mode"], "per_subseq_embs": True},
        },
        "dec_time_embedder": {
            **{"_target_": classes.TIME, "dim": width, "max_timestep": 1.0},
            "frequency_embedding_size": config["time_freq_dim"],
        },
        "dec_transformer": {
            **{**trunk, "dim": width, "depth": config["dec_depth"]},
            **{"adaLN_expansion": 2, "adaLN_emb_read_key": "dec_time"},
        },
        "dec_to_patches": {
            **{"_target_": classes.TO_PATCHES, "dim": width, **head},
            **{"channels_out": config["latent_channels"], "patch_sizes": window},
            "adaLN_emb_read_key": "dec_time",
        },
    }
    if PREFIX not in weights:
        del decoder["dec_prefix_masking"]
    encoder = {
        "enc_patch_emb": {**patches, "dim": enc},
        "enc_posemb_module": {**cells, "dim": enc},
        "enc_register_module": {
            **{"_target_": classes.REGISTERS, "dim": enc, "t_max": config["t_max"]},
            **{"n_min": count, "n_max": count},
        },
        "enc_seq_packer": {**packer, "mask_mode": config["enc_mask_mode"]},
        "enc_transformer": {**trunk, "dim": enc, "depth": config["enc_depth"]},
        "enc_to_latents": {"_target_": classes.HEAD, "dim": enc, "dim_out": levels, **head},
    }
    return {
        "_target_": classes.MODELS[0],
        "vae": {"_target_": classes.VAE, "tokenizer_id": classes.VIDTOK},
        "encoder": {"_target_": classes.SEQUENCE, "module_dict": encoder},
        "decoder": {"_target_": classes.SEQUENCE, "module_dict": decoder},
        "regularizer": {"_target_": classes.FSQ, "levels": config["fsq_levels"]},
        "flow_matching_noise_module": {"_target_": classes.NOISE},
        "pipeline": {"_target_": classes.PIPELINE, "_partial_": True},
        "constants": {
            "image_size": [one * vae.factor for one in sides],
            "frames": 1 + (config["frames"] - 1) * vae.frame_stride,
            "vae": vae.model_dump(mode="json"),
        },
    }
