"""FlexTok's official config, a tree of class paths and arguments, and ours.

A config may carry two `constants` that the official code has none for:
`image_size`, where it is not that of the position table, and `vae`, a VAE of other sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vistok.pretrained.tokenizers.class_tree import REQUIRED, ClassTree

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

# Arguments of each class and their defaults.
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
_NORMS = (f"{ROOT}.model.layers.norm.Fp32LayerNorm", "torch.nn.LayerNorm")


def unwrapped(official: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tree itself, of a config that the Hub's mixin put below `config`."""
    inner = official.get("config")
    return inner if isinstance(inner, Mapping) and "encoder" in inner else official


TREE = ClassTree(ROOT, ARGUMENTS, SEQUENCE, _OPTIONAL, _NORMS)


def square(sizes: Any, place: str) -> int:
    """The side of square patches."""
    if not isinstance(sizes, list | tuple) or len(sizes) != 2 or sizes[0] != sizes[1]:
        TREE.refuse(place, sizes, "two equal sides")
    return sizes[0]


def fsq_of(classes: ClassTree, tree: Mapping[str, Any], target: str) -> dict[str, Any]:
    """Our quantizer of a model's tree, whose FSQ is the class `target`."""
    fsq = classes.options(tree.get("regularizer"), "regularizer", target)
    why = "a switch of training that is not taken over"
    classes.ignored(fsq, "regularizer", why, drop_quant_p=0.0, corrupt_tokens_p=0.0)
    return {"kind": "fsq", "levels": fsq["levels"]}


def times_of(noise: Mapping[str, Any]) -> dict[str, Any]:
    """Our times of the flow, of the arguments of its noise module."""
    if noise["ln"]:
        return {"stratify": "local" if noise["stratisfied"] else "none"}
    if noise["mode_scale"]:
        return {"kind": "mode", "mode_scale": noise["mode_scale"]}
    return {"kind": "uniform"}
