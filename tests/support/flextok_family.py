"""The official config tree of a FlexTok recording, whose `config` is flat."""

from __future__ import annotations

import re
from typing import Any

from vistok.pretrained.tokenizers import flextok_config as classes

_NORM = "flextok.model.layers.norm.Fp32LayerNorm"


def tree(config: dict[str, Any]) -> dict[str, Any]:
    """The tree that the official code would have been built from."""
    levels, width = len(config["vae_block_out_channels"]), config["dec_dim"]
    count = config["n_registers"]
    trunk = {
        "_target_": classes.TRUNK,
        "head_dim": config["head_dim"],
        "mlp_ratio": config["mlp_ratio"],
        "qk_norm": config["qk_norm"],
        **_mlp(str(config["gated_mlp"])),
        "norm_layer": _norm(str(config["norm"])),
    }
    patches = {
        "_target_": classes.PATCHES,
        "patch_sizes": [config["patch_size"]] * 2,
        "channels_in": config["vae_latent_channels"],
    }
    grid = {"_target_": classes.POSITIONS, "max_sizes": [config["posemb_grid"]] * 2}
    packer = {"_target_": classes.PACKER}
    kinds = bool(config["per_subseq_adaln"])
    where = config["dec_patch_posemb"]
    return {
        "vae": {
            "_target_": classes.VAE,
            "latent_channels": config["vae_latent_channels"],
            "scaling_factor": config["vae_scaling_factor"],
            "sample_posterior": not str(config["posterior"]).startswith("mode"),
        },
        "encoder": {
            "_target_": classes.SEQUENCE,
            "module_dict": {
                "enc_patch_emb": {**patches, "dim": config["enc_dim"]},
                "enc_posemb_module": {**grid, "dim": config["enc_dim"], "posemb_type": "sincos"},
                "enc_register_module": {
                    **{"_target_": classes.REGISTERS, "dim": config["enc_dim"]},
                    **{"n_min": count, "n_max": count},
                },
                "enc_seq_packer": {**packer, "mask_mode": config["enc_mask_mode"]},
                "enc_transformer": {
                    **trunk,
                    "dim": config["enc_dim"],
                    "depth": config["enc_depth"],
                },
                "enc_to_latents": {
                    "_target_": classes.HEAD,
                    "dim": config["enc_dim"],
                    "dim_out": len(config["fsq_levels"]),
                    "norm_layer": _norm(str(config["norm"])),
                },
            },
        },
        "decoder": {
            "_target_": classes.SEQUENCE,
            "module_dict": {
                "dec_from_latents": {
                    **{"_target_": classes.LINEAR, "dim": width},
                    "dim_in": len(config["fsq_levels"]),
                },
                "dec_registers_posemb_module": {
                    **{"_target_": classes.POSITIONS, "dim": width, "max_sizes": [count]},
                    "posemb_type": "learnable_sum",
                },
                "dec_nested_dropout": {
                    **{"_target_": classes.NESTED, "dim": width},
                    "size_sampling_mode": "uniform_pow2",
                },
                "dec_latent_dropout": {"_target_": classes.NULL, "dim": width},
                "dec_noise_patch_emb": {**patches, "dim": width},
                "dec_patches_posemb_module": {**grid, "dim": width, "posemb_type": where},
                "dec_seq_packer": {**packer, "mask_mode": "full", "per_subseq_embs": kinds},
                "dec_time_embedder": {
                    **{"_target_": classes.TIME, "dim": width, "max_timestep": 1.0},
                    "frequency_embedding_size": config["time_freq_dim"],
                },
                "dec_transformer": {
                    **{**trunk, "dim": width, "depth": config["dec_depth"]},
                    **{"adaLN_expansion": 1 + kinds, "adaLN_emb_read_key": "dec_time"},
                },
                "dec_to_patches": {
                    **{"_target_": classes.TO_PATCHES, "dim": width},
                    "channels_out": config["vae_latent_channels"],
                    "patch_sizes": [config["patch_size"]] * 2,
                    "norm_layer": _norm(str(config["norm"])),
                    "adaLN_emb_read_key": "dec_time",
                },
            },
        },
        "regularizer": {"_target_": classes.FSQ, "levels": config["fsq_levels"]},
        "flow_matching_noise_module": {"_target_": classes.NOISE},
        "pipeline": {"_target_": classes.PIPELINE, "_partial_": True},
        "constants": {
            "image_size": config["image_size"],
            "vae": {
                "block_out_channels": config["vae_block_out_channels"],
                "layers_per_block": config["vae_layers_per_block"],
                "norm_num_groups": config["vae_norm_num_groups"],
                "down_block_types": ["DownEncoderBlock2D"] * levels,
                "up_block_types": ["UpDecoderBlock2D"] * levels,
            },
        },
    }


def _mlp(said: str) -> dict[str, Any]:
    """Arguments of what a recording says of its feed-forward layers."""
    gelu = "gelu" in said.lower()
    plain = said.lower() in ("false", "none") or "no gate" in said.lower()
    return {"gated_mlp": not plain, "act_layer": "torch.nn.GELU" if gelu else "torch.nn.SiLU"}


def _norm(said: str) -> dict[str, Any]:
    """The partial class of what a recording says of its norms."""
    eps = re.search(r"eps ([0-9.e-]+)", said)
    norm = {"_target_": _NORM, "_partial_": True, "bias": False, "elementwise_affine": False}
    return norm if eps is None else {**norm, "eps": float(eps[1].rstrip(".,"))}
