"""The quantizer of XQ-GAN's models: which of its classes it is, and how many of them.

One scale is VectorQuantizer, whatever else a config says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vistok.config import Config, ConfigError
from vistok.pretrained.base import Entry, flag
from vistok.pretrained.tokenizers import xqgan_quantizers as classes

READ = frozenset(
    "codebook_size codebook_embed_dim codebook_l2_norm commit_loss_beta entropy_loss_ratio "
    "v_patch_nums share_quant_resi lfq scale soft_entropy".split()
)
_SCALES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)


def tree(model: Mapping[str, Any], branches: int, side: int) -> dict[str, Any]:
    """Arguments of the official model -> config of the quantizer.

    Args:
        branches: P of `product_quant`. side: of the square grid of a branch's latents.
    """
    scales = model.get("v_patch_nums", _SCALES)
    if branches > 1 or len(scales) > 1:
        raise ConfigError(
            f"xqgan: product_quant {branches} with v_patch_nums {scales}; expected 1 and a single "
            "scale"
        )
    norm = flag(model, "codebook_l2_norm", True)
    own = classes.vector_quantizer(
        {
            "vocab_size": model.get("codebook_size", 16384),
            "z_channels": model.get("codebook_embed_dim", 8),
            "beta": model.get("commit_loss_beta", 0.25),
            "codebook_norm": norm,
        }
    )
    return {**own, "init": "sphere" if norm else "uniform"}


def official(config: Config, side: int) -> dict[str, Any]:
    """The inverse of `tree`."""
    return {
        "codebook_size": config.codebook_size,
        "codebook_embed_dim": config.dim,
        "codebook_l2_norm": config.l2_norm,
        "commit_loss_beta": config.loss_weights.get("commitment", 0.0),
        "v_patch_nums": [side],
    }


def entries(config: Config) -> list[Entry]:
    """The key table of a model's quantizer."""
    return classes.entries(config, "quantizer.", "quantize.")


def fixed(config: Config) -> dict[str, Tensor]:
    """Hit counts, which start at none: the official training sets them in its first step."""
    return {"quantize.ema_vocab_hit_SV": torch.zeros(config.codebook_size)}
