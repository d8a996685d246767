"""The official config tree of a VideoFlexTok that was trained here."""

from __future__ import annotations

from typing import Any

from vistok.pretrained.tokenizers import flextok_official as images
from vistok.pretrained.tokenizers import videoflextok_config as classes
from vistok.pretrained.tokenizers.videoflextok_modules import LENGTHS, SIGHTS
from vistok.tokenizer import TokenizerConfig

_LINKS = {
    "dec_prefix_masking": {
        "read_write_key": "dec_registers",
        "prefix_len_read_key": "prefix_len",
    },
    "dec_nested_dropout": {"read_write_key": "dec_registers"},
    "dec_latent_dropout": {"read_write_key": "dec_registers"},
}


def written(config: TokenizerConfig) -> dict[str, Any]:
    """The tree, which the family's `config` reads back; in the Hub's wrapper if it has chunks."""
    tree = _model(config)
    if config.chunks is None:
        return tree
    network = config.input_space.network
    steps = 1 + (config.frames - 1) // network.frame_stride
    return {
        "video_flex_tok": tree,
        "chunk_size": config.frames,
        "overlap_size_frames": config.chunks.overlap,
        "vae_video_sizes": [steps, *(side // network.factor for side in config.image_size)],
        "video_preprocess_args": {},
    }


def _model(config: TokenizerConfig) -> dict[str, Any]:
    space, decoder = config.input_space, config.decoder
    network = space.network.model_dump(mode="json")
    channels = space.network.latent_channels
    noise = images.noise(config, classes.NOISE)
    if decoder.given is not None:
        given = decoder.given
        noise |= {
            "_target_": classes.PREFIX_NOISE,
            "prefix_len": list(given.lengths),
            "keep_prefix_prob": list(given.shares),
            "cond_sigma_range": [given.noise.low, given.noise.high],
            "cond_noise_prob": given.noise.share,
        }
    return {
        "_target_": classes.MODELS[0],
        "vae": {
            "_target_": classes.VAE,
            **images.VAE_LINKS,
            "tokenizer_id": classes.VIDTOK,
        },
        "encoder": {
            "_target_": classes.SEQUENCE,
            "module_dict": images.linked(_encoder(config), images.ENCODER),
        },
        "decoder": {"_target_": classes.SEQUENCE, "module_dict": _decoder_in_order(config)},
        "regularizer": images.regularizer(config, classes.FSQ),
        "flow_matching_noise_module": noise,
        "pipeline": {
            "_target_": classes.PIPELINE,
            "_partial_": True,
            "latents_read_key": "quants",
            "timesteps_read_key": "timesteps",
            "noised_videos_read_key": "noised",
            "reconst_write_key": "vae_latents",
            "cond_vae_latents_key": "cond_vae_latents",
            "out_channels": channels,
        },
        "constants": {
            "image_size": list(config.image_size),
            "frames": config.frames,
            "vae": network,
        },
    }


def _decoder_in_order(config: TokenizerConfig) -> dict[str, Any]:
    """The decoder's modules, those that overwrite values in the order of the config."""
    tree = _decoder(config)
    links = {**images.DECODER, **_LINKS}
    names = {ours: theirs for theirs, ours in classes.OVERWRITES.items()}
    first = ["dec_from_latents", "dec_registers_posemb_module"]
    order = [*first, *(names[name] for name in config.decoder.overwrites)]
    order += [name for name in images.DECODER if name not in order]
    return images.linked(tree, {name: links[name] for name in order})


def _encoder(config: TokenizerConfig) -> dict[str, Any]:
    encoder = config.encoder
    width, count = encoder.transformer.width, encoder.latents.count
    return {
        "enc_channels_to_last": _moved("channels_first_to_last"),
        "enc_patch_emb": _patches(encoder, config),
        **_positions("enc_posemb_module", encoder.patches.positions, width),
        "enc_register_module": {
            **{"_target_": classes.REGISTERS, "dim": width, "t_max": encoder.latents.steps},
            **{"n_min": count, "n_max": count},
        },
        "enc_seq_packer": _packer(encoder),
        "enc_transformer": images.trunk(encoder.transformer, classes.moved),
        "enc_unpacker": {"_target_": classes.UNPACKER},
        "enc_to_latents": {
            **images.head(classes.HEAD, encoder.transformer, classes.moved),
            "dim_out": len(config.quantizer.levels),
            "weight_init_style": "xavier" if encoder.latents.gain else "zero",
        },
    }


def _decoder(config: TokenizerConfig) -> dict[str, Any]:
    decoder = config.decoder
    inner, width = decoder.transformer, decoder.transformer.width
    drops = {part.kind: part for part in config.regularizers}
    found: dict[str, Any] = {
        "dec_from_latents": {
            **{"_target_": classes.LINEAR, "dim_in": len(config.quantizer.levels), "dim": width},
        },
        **_positions("dec_registers_posemb_module", decoder.value_positions or "none", width),
    }
    if decoder.missing == "mask_token":
        found["dec_nested_dropout"] = {"dim": width, **_nested(drops.get("nested_dropout"))}
    if decoder.given is not None and decoder.given.hidden:
        found["dec_prefix_masking"] = {"_target_": classes.PREFIX, "dim": width}
    if decoder.null != "none":
        null = drops.get("condition_dropout")
        share = {"dropout_prob": 0.0 if null is None else null.share}
        found["dec_latent_dropout"] = {"_target_": classes.ZERO, **share}
        if decoder.null == "learned":
            found["dec_latent_dropout"] = {"_target_": classes.NULL, "dim": width, **share}
    return {
        **found,
        "dec_noise_channels_to_last": _moved("channels_first_to_last"),
        "dec_noise_patch_emb": _patches(decoder, config),
        **_positions("dec_patches_posemb_module", decoder.patches.positions, width),
        "dec_seq_packer": {**_packer(decoder), "per_subseq_embs": True},
        "dec_time_embedder": {
            "_target_": classes.TIME,
            "dim": width,
            "frequency_embedding_size": decoder.time.channels,
            "max_timestep": 1000.0 / decoder.time.scale,
        },
        "dec_transformer": {
            **images.trunk(inner, classes.moved),
            "adaLN_expansion": 2,
            "intermediate_layers": [block - 1 for block in decoder.taps.values()],
        },
        "dec_to_patches": {
            **images.head(classes.TO_PATCHES, inner, classes.moved),
            **({"adaLN_emb_read_key": "dec_time"} if decoder.head_modulation else {}),
            "channels_out": config.input_space.network.latent_channels,
            "patch_sizes": [decoder.patches.frames, *[decoder.patches.size] * 2],
        },
        "dec_unpacker": {"_target_": classes.UNPACKER},
        "dec_channels_to_first": _moved("channels_last_to_first"),
    }


def _nested(nested: Any) -> dict[str, Any]:
    """Class and modes of the dropout of tokens."""
    if nested is None:
        return {"_target_": classes.NESTED}
    names = {one["lengths"]: name for name, one in LENGTHS.items()}
    if nested.lengths == "power_law":
        mode = {"size_sampling_mode": "zipf", "zipf_a": nested.power}
        return {"_target_": classes.NESTED, **mode}
    mode = names[nested.lengths]
    if nested.time_steps == "shared":
        return {"_target_": classes.NESTED, "size_sampling_mode": mode}
    modes = [names[nested.first_lengths], mode] if nested.first_lengths else mode
    return {"_target_": classes.EACH_NESTED, "size_sampling_mode": modes}


def _packer(part: Any) -> dict[str, Any]:
    found = {"_target_": classes.PACKER, "mask_mode": part.attention, "pad_to_multiple": 128}
    if part.attention == "flexible_time_block_causal_last":
        sights = {key: getattr(part.earlier, ours) for key, ours in SIGHTS.items()}
        found["cross_timestep_attention_config"] = sights
    return found


def _moved(function: str) -> dict[str, Any]:
    """A module that moves the axes of each sample."""
    path = f"{classes.ROOT}.model.utils.dict_ops.{function}"
    return {
        "_target_": classes.PER_SAMPLE,
        "per_sample_op": {"_target_": path, "_partial_": True},
    }


def _patches(part: Any, config: TokenizerConfig) -> dict[str, Any]:
    return {
        "_target_": classes.PATCHES,
        "patch_sizes": [part.patches.frames, *[part.patches.size] * 2],
        "channels_in": config.input_space.network.latent_channels,
        "dim": part.transformer.width,
        "flatten_patches": False,
    }


def _positions(name: str, positions: Any, width: int) -> dict[str, Any]:
    found = images.positions(name, positions, width, list(getattr(positions, "sides", None) or ()))
    return {key: {**one, "_target_": classes.POSITIONS} for key, one in found.items()}
