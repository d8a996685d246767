"""The official config tree of a FlexTok that was trained here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vistok.frozen.vae import OWN
from vistok.pretrained.tokenizers import flextok_config as classes
from vistok.tokenizer import TokenizerConfig

_KINDS = {"sincos": "sincos", "sum": "learnable_sum", "product": "learnable_prod"}
_FITS = {"crop": "absolute", "interpolate": "interpolate"}
_NORM = "flextok.model.layers.norm.Fp32LayerNorm"


# Entries of the official code's dict that each module reads and writes, in the order of modules.
ENCODER = {
    "enc_channels_to_last": {"read_key": "vae_latents", "write_key": "enc_input"},
    "enc_patch_emb": {
        "input_tensor_list_read_key": "enc_input",
        "patches_list_write_key": "enc_patches",
        "n_patches_write_key": "enc_n_patches",
    },
    "enc_posemb_module": {"read_key": "enc_patches", "write_key": "enc_patches"},
    "enc_register_module": {
        "input_tensor_list_read_key": "enc_patches",
        "register_sizes_read_write_key": "enc_register_sizes",
        "registers_write_key": "enc_registers",
    },
    "enc_seq_packer": {
        "input_list_read_keys": ["enc_patches", "enc_registers"],
        "packed_seq_write_key": "enc_packed_seq",
        "block_mask_write_key": "enc_block_mask",
        "inner_packed_shapes_write_key": "enc_inner_shapes",
        "outer_packed_shapes_write_key": "enc_outer_shapes",
    },
    "enc_transformer": {
        "input_seq_read_key": "enc_packed_seq",
        "output_seq_write_key": "enc_packed_seq",
        "block_mask_read_key": "enc_block_mask",
    },
    "enc_unpacker": {
        "packed_seq_read_key": "enc_packed_seq",
        "inner_seq_write_keys": ["enc_patches", "enc_registers"],
        "inner_packed_shapes_read_key": "enc_inner_shapes",
        "outer_packed_shapes_read_key": "enc_outer_shapes",
    },
    "enc_to_latents": {"read_key": "enc_registers", "write_key": "enc_latents"},
}
DECODER = {
    "dec_from_latents": {"read_key": "quants", "write_key": "dec_registers"},
    "dec_registers_posemb_module": {"read_key": "dec_registers", "write_key": "dec_registers"},
    "dec_nested_dropout": {"read_write_key": "dec_registers"},
    "dec_latent_dropout": {"read_write_key": "dec_registers"},
    "dec_noise_channels_to_last": {"read_key": "noised", "write_key": "dec_noise"},
    "dec_noise_patch_emb": {
        "input_tensor_list_read_key": "dec_noise",
        "patches_list_write_key": "dec_patches",
        "n_patches_write_key": "dec_n_patches",
    },
    "dec_patches_posemb_module": {"read_key": "dec_patches", "write_key": "dec_patches"},
    "dec_seq_packer": {
        "input_list_read_keys": ["dec_patches", "dec_registers"],
        "packed_seq_write_key": "dec_packed_seq",
        "block_mask_write_key": "dec_block_mask",
        "inner_packed_shapes_write_key": "dec_inner_shapes",
        "outer_packed_shapes_write_key": "dec_outer_shapes",
        "emb_packing_fn_write_key": "dec_packing",
    },
    "dec_time_embedder": {
        "timesteps_read_key": "timesteps",
        "time_embedding_write_key": "dec_time",
    },
    "dec_transformer": {
        "input_seq_read_key": "dec_packed_seq",
        "output_seq_write_key": "dec_packed_seq",
        "block_mask_read_key": "dec_block_mask",
        "adaLN_emb_read_key": "dec_time",
        "adaLN_packing_fn_read_key": "dec_packing",
        "intermediate_layer_write_key": "dec_repa",
    },
    "dec_unpacker": {
        "packed_seq_read_key": "dec_packed_seq",
        "inner_seq_write_keys": ["dec_patches", "dec_registers"],
        "inner_packed_shapes_read_key": "dec_inner_shapes",
        "outer_packed_shapes_read_key": "dec_outer_shapes",
    },
    "dec_to_patches": {"read_key": "dec_patches", "write_key": "dec_output"},
    "dec_channels_to_first": {"read_key": "dec_output", "write_key": "vae_latents"},
}


VAE_LINKS = {
    "images_read_key": "rgb",
    "vae_latents_read_key": "vae_latents",
    "vae_latents_write_key": "vae_latents",
    "images_reconst_write_key": "rgb_reconst",
}


def linked(tree: dict[str, Any], keys: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Modules in the order in which they run, each with the entries that it reads and writes."""
    return {name: {**tree[name], **keys[name]} for name in keys if name in tree}


def regularizer(config: TokenizerConfig, target: str) -> dict[str, Any]:
    """The quantizer's tree; `target` is the path of its class."""
    return {
        "_target_": target,
        "latents_read_key": "enc_latents",
        "quants_write_key": "quants",
        "tokens_write_key": "tokens",
        "levels": list(config.quantizer.levels),
    }


def noise(config: TokenizerConfig, target: str) -> dict[str, Any]:
    """The tree of the flow's noise module; `target` is the path of its class."""
    times = config.decoder.times
    return {
        "_target_": target,
        "clean_images_read_key": "vae_latents",
        "noised_images_write_key": "noised",
        "timesteps_write_key": "timesteps",
        "sigmas_write_key": "sigmas",
        "ln": times.kind == "logit_normal",
        "stratisfied": times.stratify == "local",
        "mode_scale": times.mode_scale if times.kind == "mode" else 0.0,
    }


def written(config: TokenizerConfig) -> dict[str, Any]:
    """The tree, which the family's `config` reads back."""
    encoder, decoder, space = config.encoder, config.decoder, config.input_space
    factor, channels = space.network.factor, space.network.latent_channels
    grid = lambda part: [side // factor // part.patches.size for side in config.image_size]
    network = space.network.model_dump(mode="json", exclude={"latent_channels"})
    return {
        "vae": {
            "_target_": classes.VAE,
            **VAE_LINKS,
            "vae_kl_loss_write_key": "vae_kl",
            "latent_channels": channels,
            "hf_hub_path": None if space.weights == OWN else space.weights,
            "scaling_factor": space.scaling_factor,
            "sample_posterior": space.sample_posterior,
            "frozen": True,
        },
        "encoder": {
            "_target_": classes.SEQUENCE,
            "module_dict": linked(_encoder(config, channels, grid(encoder)), ENCODER),
        },
        "decoder": {
            "_target_": classes.SEQUENCE,
            "module_dict": linked(_decoder(config, channels, grid(decoder)), DECODER),
        },
        "regularizer": regularizer(config, classes.FSQ),
        "flow_matching_noise_module": noise(config, classes.NOISE),
        "pipeline": {
            "_target_": classes.PIPELINE,
            "_partial_": True,
            "latents_read_key": "quants",
            "timesteps_read_key": "timesteps",
            "noised_images_read_key": "noised",
            "reconst_write_key": "vae_latents",
            "out_channels": channels,
        },
        "constants": {"image_size": list(config.image_size), "vae": network},
    }


def _encoder(config: TokenizerConfig, channels: int, grid: list[int]) -> dict[str, Any]:
    encoder = config.encoder
    width, count = encoder.transformer.width, encoder.latents.count
    modes = {"full": "full", "causal": "causal", "causal_latents": "causal_last"}
    return {
        "enc_channels_to_last": _moved("... c h w -> ... h w c"),
        "enc_patch_emb": _patches(encoder, channels),
        **positions("enc_posemb_module", encoder.patches.positions, width, grid),
        "enc_register_module": {
            **{"_target_": classes.REGISTERS, "dim": width},
            **{"n_min": count, "n_max": count},
        },
        "enc_seq_packer": {
            "_target_": classes.PACKER,
            "mask_mode": modes[encoder.attention],
            "pad_to_multiple": 128,
        },
        "enc_transformer": trunk(encoder.transformer),
        "enc_unpacker": {"_target_": classes.UNPACKER},
        "enc_to_latents": {
            **head(classes.HEAD, encoder.transformer),
            "dim_out": len(config.quantizer.levels),
            "weight_init_style": "xavier" if encoder.latents.gain else "zero",
        },
    }


def _decoder(config: TokenizerConfig, channels: int, grid: list[int]) -> dict[str, Any]:
    decoder = config.decoder
    inner = decoder.transformer
    width, kinds = inner.width, inner.modulation_kinds
    modes = {"full": "full", "causal": "causal", "causal_values": "causal_last"}
    drops = {part.kind: part for part in config.regularizers}
    found: dict[str, Any] = {
        "dec_from_latents": {
            **{"_target_": classes.LINEAR, "dim_in": len(config.quantizer.levels), "dim": width},
        },
        **positions(
            "dec_registers_posemb_module",
            decoder.value_positions or "none",
            width,
            [config.encoder.latents.count],
        ),
    }
    if decoder.missing == "mask_token":
        nested = drops.get("nested_dropout")
        mode = "uniform" if nested is None else nested.lengths
        found["dec_nested_dropout"] = {
            **{"_target_": classes.NESTED, "dim": width, "size_sampling_mode": mode},
        }
    if decoder.null != "none":
        null = drops.get("condition_dropout")
        share = {"dropout_prob": 0.0 if null is None else null.share}
        found["dec_latent_dropout"] = {"_target_": classes.ZERO, **share}
        if decoder.null != "zero":
            single = {"replace_with_single_token": decoder.null == "single"}
            found["dec_latent_dropout"] = {
                **{"_target_": classes.NULL, "dim": width, **share, **single},
            }
    return {
        **found,
        "dec_noise_channels_to_last": _moved("... c h w -> ... h w c"),
        "dec_noise_patch_emb": _patches(decoder, channels),
        **positions("dec_patches_posemb_module", decoder.patches.positions, width, grid),
        "dec_seq_packer": {
            **{"_target_": classes.PACKER, "mask_mode": modes[decoder.attention]},
            **{"pad_to_multiple": 128, "per_subseq_embs": kinds == 2},
        },
        "dec_time_embedder": {
            "_target_": classes.TIME,
            "dim": width,
            "frequency_embedding_size": decoder.time.channels,
            "max_timestep": 1000.0 / decoder.time.scale,
        },
        "dec_transformer": {
            **trunk(inner),
            "adaLN_expansion": kinds,
            "intermediate_layers": [block - 1 for block in decoder.taps.values()],
        },
        "dec_to_patches": {
            **head(classes.TO_PATCHES, inner),
            **({"adaLN_emb_read_key": "dec_time"} if decoder.head_modulation else {}),
            "channels_out": channels,
            "patch_sizes": [decoder.patches.size] * 2,
        },
        "dec_unpacker": {"_target_": classes.UNPACKER},
        "dec_channels_to_first": _moved("... h w c -> ... c h w"),
    }


def _moved(pattern: str) -> dict[str, Any]:
    """A module that moves the axes of each sample."""
    function = {"_target_": "einops.rearrange", "_partial_": True, "pattern": pattern}
    return {"_target_": classes.PER_SAMPLE, "per_sample_op": function}


def _patches(part: Any, channels: int) -> dict[str, Any]:
    return {
        "_target_": classes.PATCHES,
        "patch_sizes": [part.patches.size] * 2,
        "channels_in": channels,
        "dim": part.transformer.width,
        "flatten_patches": False,
    }


def positions(name: str, positions: Any, width: int, grid: list[int]) -> dict[str, Any]:
    """A module that adds a position table; {} without one."""
    if positions == "none":
        return {}
    return {
        name: {
            "_target_": classes.POSITIONS,
            "dim": width,
            "max_sizes": list(positions.sides or grid),
            "posemb_type": _KINDS[positions.kind],
            "posemb_scaling": _FITS[positions.fit],
        }
    }


def _norm(transformer: Any, moved: Callable[[str], str]) -> dict[str, Any]:
    norm = {"_target_": moved(_NORM), "_partial_": True, "bias": False, "elementwise_affine": False}
    return norm if transformer.norm_eps == 1e-5 else {**norm, "eps": transformer.norm_eps}


def head(target: str, transformer: Any, moved: Callable[[str], str] = str) -> dict[str, Any]:
    """Arguments that linear heads share.

    Args:
        moved: changes class paths, for another project with these classes.
    """
    return {
        "_target_": target,
        "dim": transformer.width,
        "use_mup_readout": False,
        "norm_layer": _norm(transformer, moved),
    }


def trunk(transformer: Any, moved: Callable[[str], str] = str) -> dict[str, Any]:
    """Arguments of a transformer; `moved` as of `head`."""
    bias = lambda own: transformer.bias if own is None else own
    gelu = transformer.mlp in ("gelu", "geglu")
    return {
        "_target_": moved(classes.TRUNK),
        "dim": transformer.width,
        "depth": transformer.depth,
        "head_dim": transformer.width // transformer.heads,
        "mlp_ratio": transformer.mlp_ratio,
        "qkv_bias": bias(transformer.qkv_bias),
        "proj_bias": bias(transformer.out_bias),
        "mlp_bias": bias(transformer.mlp_bias),
        "drop": transformer.dropout,
        "drop_path_rate": transformer.drop_path,
        "act_layer": "torch.nn.GELU" if gelu else "torch.nn.SiLU",
        "norm_layer": _norm(transformer, moved),
        "gated_mlp": transformer.mlp in ("swiglu", "geglu"),
        "qk_norm": transformer.qk_norm,
        "weight_init_style": transformer.init,
    }
