"""TokenBridge's official config: arguments of the network and of its command line, as our trees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vistok.config import ConfigError, validate
from vistok.config.registry import build
from vistok.quantizers.atoms.scalar import ScalarConfig, gaussian_levels, level_bounds

ORDER = (8, 1, 10, 9, 6, 12, 4, 0, 3, 11, 7, 14, 2, 15, 13, 5)  # of channels, by their frequencies
SIZES = {  # width and blocks of encoder and decoder, heads; width, blocks of the head, heads
    "tokenbridge_base": (768, 12, 12, 768, 4, 8),
    "tokenbridge_large": (1024, 16, 16, 1024, 4, 8),
    "tokenbridge_huge": (1280, 20, 16, 1024, 6, 8),
}
# Arguments of the network, with the defaults of its code.
DEFAULTS: dict[str, Any] = {
    "img_size": 256,
    "vae_stride": 16,
    "patch_size": 1,
    "encoder_embed_dim": 1024,
    "encoder_depth": 16,
    "encoder_num_heads": 16,
    "decoder_embed_dim": 1024,
    "decoder_depth": 16,
    "decoder_num_heads": 16,
    "channel_embed_dim": 256,
    "channel_depth": 4,
    "channel_heads": 8,
    "mlp_ratio": 4.0,
    "norm_eps": 1e-6,  # of the norm that all released sizes give the network
    "quant_levels": 32,
    "vae_embed_dim": len(ORDER),
    "mask_ratio_min": 0.7,
    "label_drop_prob": 0.1,
    "class_num": 1000,
    "attn_dropout": 0.1,
    "proj_dropout": 0.1,
    "buffer_size": 64,
    "quant_min": -5.0,
    "quant_max": 5.0,
    "std_range": 3.0,
    "channel_order": ORDER,
}
# Arguments on which no number depends.
SILENT = frozenset({"use_quantized_value", "grad_checkpointing"})
# Settings of sampling: our name, those of the command line and of the recordings, the default.
SAMPLING = {
    "steps": ("num_iter", "sampling_iterations", 64),
    "guidance": ("cfg", "guidance_scale", 1.0),
    "guidance_schedule": ("cfg_schedule", "guidance_schedule", "linear"),
    "temperature": ("temperature", "temperature", 1.0),
}
READ = frozenset(
    {*DEFAULTS, *SILENT, "model", "quant_bits"}
    | {name for row in SAMPLING.values() for name in row[:2]}
)


def given_of(official: Mapping[str, Any]) -> dict[str, Any]:
    """The network's arguments: the defaults of its code, of the model's name, and what is given."""
    found = dict(DEFAULTS)
    if "model" in official:
        if official["model"] not in SIZES:
            raise ConfigError(
                f"tokenbridge_ar: model={official['model']}: expected one of {', '.join(SIZES)}"
            )
        width, depth, heads, inner, blocks, parts = SIZES[official["model"]]
        for part in ("encoder", "decoder"):
            found |= {f"{part}_embed_dim": width, f"{part}_depth": depth}
            found[f"{part}_num_heads"] = heads
        found |= {"channel_embed_dim": inner, "channel_depth": blocks, "channel_heads": parts}
    if "quant_bits" in official:
        found["quant_levels"] = 2 ** official["quant_bits"]
    return found | {key: value for key, value in official.items() if key in DEFAULTS}


def transformer(given: Mapping[str, Any], width: str, depth: str, heads: str) -> dict[str, Any]:
    """A tree of ours; `width`, `depth` and `heads` are the names of their arguments."""
    return {
        "width": given[width],
        "depth": given[depth],
        "heads": given[heads],
        "mlp": "gelu",
        "mlp_ratio": given["mlp_ratio"],
        "mlp_hidden": "floor",
        "norm": "layernorm",
        "norm_eps": given["norm_eps"],
        "dropout": given["proj_dropout"],
        "mlp_dropout": given["proj_dropout"],
        "attention_dropout": given["attn_dropout"],
        "init": "xavier_fused",
        "branch_scale": "none",
    }


def sizes(width: str, depth: str, heads: str, own: Any) -> dict[str, Any]:
    """The inverse, for these three."""
    return {width: own.width, depth: own.depth, heads: own.heads}


def scalar_of(given: Mapping[str, Any]) -> ScalarConfig:
    """The quantizer, its levels computed as the official code does."""
    tree = {
        "dim": given["vae_embed_dim"],
        "levels": given["quant_levels"],
        "range": (given["quant_min"], given["quant_max"]),
        "std_range": given["std_range"],
        "empty_bins": "zero",
        "computed_in": "fp32",
    }
    return validate(ScalarConfig, tree, "tokenbridge_ar: the quantizer")


def range_of(scalar: Any) -> dict[str, float]:
    """Arguments of the range, of the quantizer whose values a generator reads; {} = the usual."""
    if not isinstance(scalar, ScalarConfig):
        return {}
    low, high = scalar.range
    return {"quant_min": low, "quant_max": high, "std_range": scalar.std_range}


def buffers_of(scalar: ScalarConfig) -> dict[str, Tensor]:
    """Constants in the official state dict: of the quantizer, and the head's attention mask."""
    return {
        "reconstruction_values": torch.tensor(gaussian_levels(scalar)),
        "boundaries": level_bounds(scalar).float(),
        "channel_mask": torch.full((scalar.dim, scalar.dim), -torch.inf).triu(1),
    }


def values_of(scalar: ScalarConfig) -> Tensor:
    """[F, V] values that the codes of each dimension stand for."""
    return build(scalar).values.expand(scalar.dim, -1)
