"""FlexTok's official config, a tree of class paths and arguments, and ours.

A class path is looked up in a table and nothing of it is ever imported or called. Arguments that
only name entries of the official code's dicts (`..._key`) say nothing here; every other one is
taken, or refused by name. A config may carry two `constants` that the official code has none for:
`image_size`, where it is not that of the position table, and `vae`, a VAE of other sizes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from vistok.config import ConfigError
from vistok.core.text import printable

ROOT = "flextok"
VAE = f"{ROOT}.vae_wrapper.StableDiffusionVAE"
FSQ = f"{ROOT}.regularizers.quantize_fsq.FSQ"
NOISE = f"{ROOT}.flow_matching.noise_modules.MinRFNoiseModule"
PIPELINE = f"{ROOT}.flow_matching.pipelines.MinRFPipeline"
SEQUENCE = f"{ROOT}.model.utils.wrappers.SequentialModuleDictWrapper"
_PRE, _POST = f"{ROOT}.model.preprocessors", f"{ROOT}.model.postprocessors"
PATCHES = f"{_PRE}.patching.PatchEmbedder"
POSITIONS = f"{ROOT}.model.utils.posembs.PositionalEmbeddingAdder"
REGISTERS = f"{_PRE}.registers.Registers1D"
PACKER = f"{_PRE}.flex_seq_packing.BlockWiseSequencePacker"
UNPACKER = f"{_POST}.seq_unpacking.SequenceUnpacker"
LINEAR = f"{_PRE}.linear.LinearLayer"
NESTED = f"{_PRE}.token_dropout.MaskedNestedDropout"
NULL, ZERO = f"{_PRE}.nullcond.LearnedNullCond", f"{_PRE}.nullcond.ZeroNullCond"
TIME = f"{_PRE}.time_embedding.TimestepEmbedder"
TRUNK = f"{ROOT}.model.trunks.transformers.FlexTransformer"
HEAD, TO_PATCHES = f"{_POST}.heads.LinearHead", f"{_POST}.heads.ToPatchesLinearHead"
PER_SAMPLE = f"{ROOT}.model.utils.dict_ops.PerSampleOp"
_RELEASE = "expected the config.json that lies beside the released weights, as it came"

# Arguments of each class and their defaults; None of the first kind: it must be given.
REQUIRED = object()
_TRUNK = {
    **{"dim": 768, "depth": 12, "head_dim": 64, "mlp_ratio": 4.0, "qkv_bias": False},
    **{"proj_bias": False, "mlp_bias": False, "drop": 0.0, "drop_path_rate": 0.0},
    **{"act_layer": "torch.nn.SiLU", "norm_layer": None, "gated_mlp": True, "qk_norm": True},
    **{"use_act_checkpoint": False, "weight_init_style": "xavier", "zero_init_query_proj": False},
    **{"adaLN_expansion": 1, "adaLN_emb_read_key": None, "intermediate_layers": ()},
}
_HEAD = {
    **{"dim": REQUIRED, "use_mup_readout": False, "weight_init_style": "zero"},
    **{"norm_layer": None, "dtype_override": None, "adaLN_bias": True, "proj_bias": True},
    "adaLN_emb_read_key": None,  # says whether the head is modulated
}
_PACKER = {
    **{"mask_mode": "full", "max_seq_len": None, "pad_to_multiple": None},
    **{"per_subseq_embs": False, "compile_block_mask": True, "return_materialized_mask": False},
}
ARGUMENTS: dict[str, dict[str, Any]] = {
    VAE: {
        **{"latent_channels": 16, "scaling_factor": None, "dtype_override": "fp32"},
        **{"hf_hub_path": None, "sample_posterior": True, "learnable_logvar": False},
        **{"logvar_init": 0.0, "compile_encode_fn": False, "force_vae_encode": True},
        "frozen": False,
    },
    FSQ: {
        **{"levels": REQUIRED, "drop_quant_p": 0.0, "corrupt_tokens_p": 0.0},
        **{"min_corrupt_tokens_p": None, "apply_corrupt_tokens_p": 0.2, "packed_call": True},
    },
    NOISE: {"ln": True, "stratisfied": False, "mode_scale": 0.0},
    PIPELINE: {"out_channels": None, "_partial_": True, "model": None},
    PATCHES: {
        **{"patch_sizes": REQUIRED, "channels_in": REQUIRED, "dim": REQUIRED},
        **{"flatten_patches": True, "weight_init_style": "xavier"},
    },
    POSITIONS: {
        **{"dim": REQUIRED, "max_sizes": REQUIRED, "posemb_type": "sincos"},
        "posemb_scaling": "absolute",
    },
    REGISTERS: {
        **{"dim": REQUIRED, "n_min": REQUIRED, "n_max": REQUIRED, "n_eval": None},
        **{"size_sampling_mode": "uniform", "ordering_mode": "nested"},
        "extra_registers_dim": None,
    },
    PACKER: _PACKER,
    UNPACKER: {},
    PER_SAMPLE: {"per_sample_op": None},
    LINEAR: {
        **{"dim_in": REQUIRED, "dim": REQUIRED, "weight_init_style": "xavier"},
        **{"dtype_override": None, "proj_bias": True},
    },
    NESTED: {"dim": REQUIRED, "size_sampling_mode": "uniform"},
    NULL: {"dim": REQUIRED, "dropout_prob": 0.0, "replace_with_single_token": False},
    ZERO: {"dropout_prob": 0.0},
    TIME: {
        **{"dim": REQUIRED, "frequency_embedding_size": 256, "weight_init_style": "xavier"},
        **{"max_timestep": 1000.0, "temb_as_tokens": False},
    },
    TRUNK: _TRUNK,
    HEAD: {**_HEAD, "dim_out": REQUIRED},
    TO_PATCHES: {**_HEAD, "channels_out": REQUIRED, "patch_sizes": REQUIRED},
}
# Modules by name, as the releases name them; the state dict's keys follow from these names.
ENCODER = {
    "enc_channels_to_last": (PER_SAMPLE,),
    "enc_patch_emb": (PATCHES,),
    "enc_posemb_module": (POSITIONS,),
    "enc_register_module": (REGISTERS,),
    "enc_seq_packer": (PACKER,),
    "enc_transformer": (TRUNK,),
    "enc_unpacker": (UNPACKER,),
    "enc_to_latents": (HEAD,),
}
DECODER = {
    "dec_from_latents": (LINEAR,),
    "dec_registers_posemb_module": (POSITIONS,),
    "dec_nested_dropout": (NESTED,),
    "dec_latent_dropout": (NULL, ZERO),
    "dec_noise_channels_to_last": (PER_SAMPLE,),
    "dec_noise_patch_emb": (PATCHES,),
    "dec_patches_posemb_module": (POSITIONS,),
    "dec_seq_packer": (PACKER,),
    "dec_time_embedder": (TIME,),
    "dec_transformer": (TRUNK,),
    "dec_unpacker": (UNPACKER,),
    "dec_repa_unpacker": (UNPACKER,),
    "dec_to_patches": (TO_PATCHES,),
    "dec_channels_to_first": (PER_SAMPLE,),
}
_OPTIONAL = {
    *("enc_channels_to_last", "enc_posemb_module", "enc_unpacker", "enc_seq_packer"),
    *("dec_registers_posemb_module", "dec_nested_dropout", "dec_latent_dropout"),
    *("dec_noise_channels_to_last", "dec_patches_posemb_module", "dec_seq_packer"),
    *("dec_unpacker", "dec_repa_unpacker", "dec_channels_to_first"),
}
_TEXT = {"torch.nn.SiLU": "silu", "torch.nn.modules.activation.SiLU": "silu"}
_TEXT |= {"torch.nn.GELU": "gelu", "torch.nn.modules.activation.GELU": "gelu"}
_NORMS = (f"{ROOT}.model.layers.norm.Fp32LayerNorm", "torch.nn.LayerNorm")


def unwrapped(official: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tree itself, of a config that the Hub's mixin put below `config`."""
    inner = official.get("config")
    return inner if isinstance(inner, Mapping) and "encoder" in inner else official


def options(tree: Any, place: str, *classes: str) -> dict[str, Any]:
    """Arguments of a module with their defaults, and its class as `_target_`.

    ConfigError for a class that is none of these, and for arguments that it does not know.
    """
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{ROOT}: the config lacks {place}; {_RELEASE}")
    target = tree.get("_target_")
    if target not in classes:
        raise ConfigError(
            f"{ROOT}: {place} names the class {printable(target)}; expected {' or '.join(classes)} "
            "(classes of a config are looked up, never run)"
        )
    known = ARGUMENTS[target]
    given = {
        k: v for k, v in tree.items() if k in known or not (k == "_target_" or _names_an_entry(k))
    }
    for key in sorted(set(given) - set(known)):
        raise ConfigError(f"{ROOT}: {place}.{printable(key)} is not known; {_RELEASE}")
    found = {**known, **given, "_target_": target}
    for key, value in found.items():
        if value is REQUIRED:
            raise ConfigError(f"{ROOT}: the config lacks {place}.{key}; {_RELEASE}")
    return found


def modules(tree: Any, side: str, known: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """{module: arguments} of encoder or decoder; those that are left out are absent."""
    if not isinstance(tree, Mapping) or not isinstance(tree.get("module_dict"), Mapping):
        raise ConfigError(f"{ROOT}: the config lacks {side}.module_dict; {_RELEASE}")
    if tree.get("_target_", SEQUENCE) != SEQUENCE:
        raise ConfigError(
            f"{ROOT}: {side} names the class {printable(tree['_target_'])}; {_RELEASE}"
        )
    named = tree["module_dict"]
    for name in named:
        if name not in known:
            raise ConfigError(
                f"{ROOT}: {side}.module_dict.{printable(name)} is not known; expected "
                f"{', '.join(known)}"
            )
    return {
        name: options(named.get(name), f"{side}.module_dict.{name}", *classes)
        for name, classes in known.items()
        if name in named or name not in _OPTIONAL
    }


def _names_an_entry(key: str) -> bool:
    return key.endswith(("_key", "_keys")) or key == "_convert_" or key == "_recursive_"


def refuse(place: str, value: Any, expected: str) -> None:
    """ConfigError for an option whose value no part of ours has."""
    raise ConfigError(f"{ROOT}: {place}={printable(value)}: not supported; expected {expected}")


def only(found: Mapping[str, Any], place: str, **wanted: Any) -> None:
    """Refuse options that have another value than these."""
    for key, value in wanted.items():
        if found[key] != value:
            refuse(f"{place}.{key}", found[key], repr(value))


def ignored(found: Mapping[str, Any], place: str, why: str, **defaults: Any) -> None:
    """Warn about options with other values than these, which change nothing here."""
    for key, value in defaults.items():
        if found[key] != value:
            warnings.warn(f"{ROOT}: {place}.{key}={printable(found[key])}: {why}", stacklevel=3)


def activation(value: Any, place: str) -> str:
    """silu or gelu, of a class path or what stands for one."""
    if isinstance(value, Mapping):
        value = value.get("path", value.get("_target_"))
    if value not in _TEXT:
        refuse(f"{place}.act_layer", value, "torch.nn.SiLU or torch.nn.GELU")
    return _TEXT[value]


def norm_eps(value: Any, place: str) -> float:
    """Epsilon of a parameter-free layer norm, of a partial class in the config."""
    if value is None:
        return 1e-5
    given = dict(value) if isinstance(value, Mapping) else {"_target_": value}
    path = given.pop("_target_", None)
    for key in ("_partial_", "bias"):
        given.pop(key, None)
    if path not in _NORMS or given.pop("elementwise_affine", True):
        refuse(f"{place}.norm_layer", value, f"{_NORMS[0]} with elementwise_affine=False")
    eps = given.pop("eps", 1e-5)
    if given:
        refuse(f"{place}.norm_layer.{sorted(given)[0]}", given, "no such argument")
    return eps


def square(sizes: Any, place: str) -> int:
    """The side of square patches."""
    if not isinstance(sizes, list | tuple) or len(sizes) != 2 or sizes[0] != sizes[1]:
        refuse(place, sizes, "two equal sides")
    return sizes[0]
