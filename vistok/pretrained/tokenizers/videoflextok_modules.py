"""Modules of VideoFlexTok's official config -> trees of our encoder, decoder and regularizers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vistok.pretrained.tokenizers import flextok_config as images
from vistok.pretrained.tokenizers import videoflextok_config as official
from vistok.pretrained.tokenizers.videoflextok_config import TREE

_MODES = {
    name: name
    for name in (
        *("full", "causal", "time_block_causal", "time_block_causal_last"),
        "flexible_time_block_causal_last",
    )
}
SIGHTS = {
    "prefix2prefix": "patches_to_patches",
    "prefix2nonprefix": "patches_to_registers",
    "nonprefix2prefix": "registers_to_patches",
    "nonprefix2nonprefix": "registers_to_registers",
}
LENGTHS = {
    **{name: {"lengths": name} for name in ("uniform", "pow2", "uniform_pow2", "uniform_halved")},
    "pow2_roundup": {"lengths": "doubling"},  # what exceeds N keeps as much as N
    "halved": {"lengths": "halved"},
}


def encoder_of(found: Mapping[str, Any]) -> dict[str, Any]:
    registers, head = found["enc_register_module"], found["enc_to_latents"]
    place, count = "enc_register_module", registers["n_max"]
    if {registers["n_min"], registers["n_eval"] or count} != {count}:
        TREE.refuse(
            f"{place}.n_min, n_eval", (registers["n_min"], registers["n_eval"]), f"n_max={count}"
        )
    mode = registers["size_sampling_mode"]
    if str(mode).startswith("k=") and mode != f"k={count}":
        TREE.refuse(f"{place}.size_sampling_mode", mode, f"k={count}, uniform or powers_of_two")
    TREE.only(registers, place, extra_registers_dim=None, ordering_mode="nested")
    trunk = TREE.transformer(found["enc_transformer"], "enc_transformer")
    TREE.check_head(head, "enc_to_latents", trunk)
    for name in ("enc_transformer", "enc_to_latents"):
        TREE.only(found[name], name, adaLN_emb_read_key=None)
    return {
        "kind": "vit",
        "patches": _patches(found, "enc_patch_emb", "enc_posemb_module"),
        "latents": {
            "count": count,
            "steps": registers["t_max"],
            "gain": 0.0 if head["weight_init_style"] == "zero" else 1.0,
        },
        "transformer": trunk,
        **_attention(found, "enc_seq_packer"),
        "token_std": "constant",
    }


def decoder_of(
    found: Mapping[str, Any], order: Sequence[str], noise: Mapping[str, Any]
) -> dict[str, Any]:
    """
    Args:
        order: names of the modules as they run. noise: arguments of the noise module.
    """
    trunk, time = found["dec_transformer"], found["dec_time_embedder"]
    head, null = found["dec_to_patches"], found.get("dec_latent_dropout")
    TREE.only(found["dec_from_latents"], "dec_from_latents", proj_bias=True)
    TREE.only(time, "dec_time_embedder", temb_as_tokens=False)
    TREE.only(found["dec_seq_packer"], "dec_seq_packer", per_subseq_embs=True)
    TREE.only(trunk, "dec_transformer", adaLN_expansion=2)
    if trunk["adaLN_emb_read_key"] is None:
        TREE.refuse("dec_transformer.adaLN_emb_read_key", None, "the time embedding")
    ours = {**TREE.transformer(trunk, "dec_transformer"), "modulation_kinds": 2}
    TREE.check_head(head, "dec_to_patches", ours)
    TREE.only(head, "dec_to_patches", adaLN_bias=True)
    if null is not None and null.get("replace_with_single_token"):
        TREE.only(null, "dec_latent_dropout", replace_with_single_token=False)
    kind = "none"
    if null is not None:
        kind = "zero" if null["_target_"] == official.ZERO else "learned"
    blocks = list(trunk["intermediate_layers"] or ())
    names = ["repa"] if len(blocks) == 1 else [f"repa_{i}" for i in blocks]
    return {
        "kind": "flow_vit",
        "patches": _patches(found, "dec_noise_patch_emb", "dec_patches_posemb_module"),
        "transformer": ours,
        "time": {
            "channels": time["frequency_embedding_size"],
            "max_period": 256.0,
            "scale": 1000.0 / time["max_timestep"],
            "scale_frequencies": True,
        },
        "time_steps": True,
        **_attention(found, "dec_seq_packer"),
        "given": _given(found, noise),
        "value_positions": TREE.positions(found, "dec_registers_posemb_module"),
        "missing": "mask_token" if "dec_nested_dropout" in found else "refuse",
        "null": kind,
        "overwrites": _order(order),
        "head_modulation": head["adaLN_emb_read_key"] is not None,
        "taps": {name: block + 1 for name, block in zip(names, blocks, strict=True)},
        "times": images.times_of(noise),
    }


def lengths_of(found: Mapping[str, Any], frames: int, stride: int) -> list[dict[str, Any]]:
    """The regularizers of a decoder's modules.

    Args:
        frames: of a clip. stride: frames of a latent frame.
    """
    parts = []
    nested = found.get("dec_nested_dropout")
    if nested is not None:
        parts.append({"kind": "nested_dropout", **_lengths(nested, 1 + (frames - 1) // stride)})
    share = found.get("dec_latent_dropout", {}).get("dropout_prob")
    if share:
        parts.append({"kind": "condition_dropout", "share": share})
    return parts


def _lengths(nested: Mapping[str, Any], steps: int) -> dict[str, Any]:
    place, mode = "dec_nested_dropout.size_sampling_mode", nested["size_sampling_mode"]

    def named(one: Any, known: Mapping[str, Any]) -> dict[str, Any]:
        if one == "zipf" and "halved" in known:
            return {"lengths": "power_law", "power": nested["zipf_a"]}
        if one not in known:
            TREE.refuse(place, one, " or ".join(known))
        return known[one]

    if nested["_target_"] == official.NESTED:
        return named(mode, LENGTHS)
    each = {key: LENGTHS[key] for key in ("uniform", "pow2", "uniform_pow2")}
    modes = [mode] if isinstance(mode, str) else list(mode)
    later = modes[1:] if len(modes) <= 2 else modes[1:steps]
    if not modes or (len(modes) > 2 and (len(modes) < steps or len(set(later)) > 1)):
        TREE.refuse(place, mode, "one mode, or two: of the first time step and of the others")
    named(modes[0], each)
    if not later or later[0] == modes[0]:
        return {"time_steps": "each", **named(modes[0], each)}
    return {"time_steps": "each", "first_lengths": modes[0], **named(later[0], each)}


def _given(found: Mapping[str, Any], noise: Mapping[str, Any]) -> dict[str, Any] | None:
    hidden = "dec_prefix_masking" in found
    if noise["_target_"] == official.NOISE:
        return {"lengths": [0], "shares": [1.0], "hidden": True} if hidden else None
    lengths, shares = noise["prefix_len"], noise["keep_prefix_prob"]
    if lengths is None or lengths == 0:
        lengths, shares = [0], [1.0]
    elif isinstance(lengths, int):
        lengths, shares = [0, lengths], [1 - shares, shares]
    low, high = noise["cond_sigma_range"]
    return {
        "lengths": list(lengths),
        "shares": list(shares),
        "noise": {"share": noise["cond_noise_prob"], "low": low, "high": high},
        "hidden": hidden,
    }


def _order(modules: Sequence[str]) -> list[str]:
    """The order in which values are overwritten, behind their position table."""
    names = [name for name in modules if name in official.OVERWRITES]
    table = "dec_registers_posemb_module"
    if names and table in modules and modules.index(names[0]) < modules.index(table):
        TREE.refuse(f"decoder.module_dict.{names[0]}", f"before {table}", "a place behind it")
    found = [official.OVERWRITES[name] for name in names]
    return [*(name for name in official.OVERWRITES.values() if name not in found), *found]


def _attention(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    kind = TREE.mask(found, name, _MODES)
    if kind != "flexible_time_block_causal_last":
        return {"attention": kind}
    sights = found[name]["cross_timestep_attention_config"] or {}
    if set(sights) != set(SIGHTS):
        place = f"{name}.cross_timestep_attention_config"
        TREE.refuse(place, sights, f"a mapping of {', '.join(SIGHTS)}")
    return {"attention": kind, "earlier": {SIGHTS[key]: sights[key] for key in SIGHTS}}


def _patches(found: Mapping[str, Any], patches: str, positions: str) -> dict[str, Any]:
    frames, side = official.window(found[patches]["patch_sizes"], f"{patches}.patch_sizes")
    TREE.only(found[patches], patches, flatten_patches=False)
    table = TREE.positions(found, positions) or "none"
    return {"size": side, "frames": frames, "positions": table}
