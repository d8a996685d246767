"""Classes of VideoFlexTok's official config, a tree as FlexTok's, and the modules by name.

The Hub's class wraps the tree as `video_flex_tok` and cuts long clips into chunks. A config may
carry `constants` that the official code has none for: `image_size` and `frames`, where no wrapper
says them, and `vae`, a VidTok of other sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vistok.pretrained.tokenizers import flextok_config as images
from vistok.pretrained.tokenizers.class_tree import REQUIRED, ClassTree

ROOT = "videoflextok"
MODELS = (
    f"{ROOT}.wrappers.VideoFlexTok",
    f"{ROOT}.resamplers.video_wrappers.VideoFlowMatchingResampler",
)
# Keys of the Hub's class; the last says how files become pixels, which data say here.
WRAPPER = frozenset(
    "_target_ video_flex_tok chunk_size overlap_size_frames vae_video_sizes "
    "video_preprocess_args".split()
)
VAE = f"{ROOT}.compressors.vidtok.VidTokVAE"
VIDTOK = "vidtok_kl_causal_488_16chn"  # the one network whose constants the code carries
_NOISES = f"{ROOT}.flow_matching.noise_modules"
NOISE, PREFIX_NOISE = f"{_NOISES}.MinRFNoiseModule", f"{_NOISES}.PrefixMinRFNoiseModule"
PIPELINE = f"{ROOT}.flow_matching.pipelines.VideoMinRFPipeline"
_PRE, _POST = f"{ROOT}.model.preprocessors", f"{ROOT}.model.postprocessors"
REGISTERS = f"{_PRE}.registers.RegistersTemporal2D"
PACKER = f"{_PRE}.flex_seq_packing.BlockWiseSequenceInterleavePacker"
UNPACKER = f"{_POST}.seq_unpacking.SequenceInterleavedUnpacker"
NESTED = f"{_PRE}.token_dropout.MaskedNestedDropout"
EACH_NESTED = f"{_PRE}.token_dropout.TemporalMaskedNestedDropout"
PREFIX = f"{_PRE}.token_dropout.MaskedPrefixDropout"
REPA_HEAD = f"{_POST}.heads.TransformerHead"


def moved(path: str) -> str:
    """A class path of FlexTok as this project has it."""
    return path.replace(f"{images.ROOT}.", f"{ROOT}.", 1)


FSQ, SEQUENCE = moved(images.FSQ), moved(images.SEQUENCE)
PATCHES, POSITIONS = moved(images.PATCHES), moved(images.POSITIONS)
LINEAR, NULL, ZERO = moved(images.LINEAR), moved(images.NULL), moved(images.ZERO)
TIME, TRUNK, HEAD = moved(images.TIME), moved(images.TRUNK), moved(images.HEAD)
TO_PATCHES, PER_SAMPLE = moved(images.TO_PATCHES), moved(images.PER_SAMPLE)

_TIMES = {"ln": True, "stratisfied": False, "mode_scale": 0.0}
_SHARED = (
    *(images.FSQ, images.PATCHES, images.POSITIONS, images.LINEAR, images.NULL, images.ZERO),
    *(images.TIME, images.TRUNK, images.HEAD, images.TO_PATCHES, images.PER_SAMPLE),
)
ARGUMENTS: dict[str, dict[str, Any]] = {
    **{moved(path): images.TREE.arguments[path] for path in _SHARED},
    VAE: {
        **{"tokenizer_id": REQUIRED, "compile": False, "chunk_size": None},
        "force_vae_encode": True,
    },
    NOISE: _TIMES,
    PREFIX_NOISE: {
        **_TIMES,
        **{"prefix_len": None, "keep_prefix_prob": None, "cond_sigma_range": (0.0, 0.02)},
        "cond_noise_prob": 0.5,
    },
    PIPELINE: {"out_channels": None, "_partial_": True, "model": None, "zero_noise": False},
    REGISTERS: {
        **{"dim": REQUIRED, "t_max": REQUIRED, "n_min": REQUIRED, "n_max": REQUIRED},
        **{"n_eval": None, "size_sampling_mode": "uniform", "ordering_mode": "nested"},
        "extra_registers_dim": None,
    },
    PACKER: {
        **{"mask_mode": "full", "max_seq_len": None, "pad_to_multiple": None},
        **{"per_subseq_embs": False, "compile_block_mask": True},
        **{"cross_timestep_attention_config": None, "repa_mask_mode": "time_block_causal"},
        "repa_patch_index": 0,
    },
    UNPACKER: {},
    NESTED: {"dim": REQUIRED, "size_sampling_mode": "uniform", "zipf_a": 0.5},
    EACH_NESTED: {"dim": REQUIRED, "size_sampling_mode": "pow2", "zipf_a": 0.5},
    PREFIX: {"dim": REQUIRED},
}
# Modules by name; those of the image model, but for `dec_prefix_masking`, which the code names.
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
    "dec_nested_dropout": (NESTED, EACH_NESTED),
    "dec_prefix_masking": (PREFIX,),
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
OVERWRITES = {
    "dec_nested_dropout": "missing",
    "dec_prefix_masking": "given",
    "dec_latent_dropout": "null",
}
_NEEDED = {
    *("enc_patch_emb", "enc_register_module", "enc_seq_packer", "enc_transformer"),
    *("enc_to_latents", "dec_from_latents", "dec_noise_patch_emb", "dec_seq_packer"),
    *("dec_time_embedder", "dec_transformer", "dec_to_patches"),
}
TREE = ClassTree(
    ROOT,
    ARGUMENTS,
    SEQUENCE,
    {*ENCODER, *DECODER} - _NEEDED,
    (f"{ROOT}.model.layers.norm.Fp32LayerNorm", "torch.nn.LayerNorm"),
)


def unwrapped(official: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config itself, of one that the Hub's mixin put below `config`."""
    inner = official.get("config")
    wrapped = isinstance(inner, Mapping) and ("video_flex_tok" in inner or "encoder" in inner)
    return inner if wrapped else official


def model_of(official: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tree of the model, of a config with the wrapper for long clips or without."""
    inner = official.get("video_flex_tok")
    return inner if isinstance(inner, Mapping) else official


def window(sizes: Any, place: str) -> tuple[int, int]:
    """(frames, side) of patches [q, p, p]."""
    fits = isinstance(sizes, list | tuple) and len(sizes) == 3 and sizes[1] == sizes[2]
    if not fits:
        TREE.refuse(place, sizes, "three numbers: frames, and two equal sides")
    return sizes[0], sizes[1]
