"""The quantizer of XQ-GAN's models: which of its classes it is, and how many of them.

One scale is VectorQuantizer, whatever else a config says; several are VectorQuantizer2, or LFQ if
`lfq` is set. Of several branches (`product_quant`) each has one of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from vistok.config import Config, ConfigError
from vistok.pretrained.base import Entry, flag
from vistok.pretrained.tokenizers import xqgan_quantizers as classes

READ = frozenset(
    "codebook_size codebook_embed_dim codebook_l2_norm commit_loss_beta entropy_loss_ratio "
    "v_patch_nums share_quant_resi lfq scale soft_entropy dependency_loss_weight codebook_drop "
    "start_drop".split()
)
_SCALES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)


def tree(model: Mapping[str, Any], branches: int) -> dict[str, Any]:
    """Arguments of the official model -> config of the quantizer.

    Args:
        branches: P of `product_quant`.
    """
    scales = list(model.get("v_patch_nums", _SCALES))
    size, dim = model.get("codebook_size", 16384), model.get("codebook_embed_dim", 8)
    norm = flag(model, "codebook_l2_norm", True)
    shared = {"v_patch_nums": scales, "share_quant_resi": model.get("share_quant_resi", 4)}
    if len(scales) == 1:
        beta = model.get("commit_loss_beta", 0.25)
        args = {"vocab_size": size, "z_channels": dim, "beta": beta, "codebook_norm": norm}
        one = classes.vector_quantizer(args)
    elif not flag(model, "lfq", False):
        one = classes.vector_quantizer_2({"vocab_size": size, "Cvae": dim, **shared})
    else:
        args = {
            "codebook_size": size,
            "Cvae": dim,
            "using_znorm": norm,
            "scale": model.get("scale", 1.0),
            "entropy_weight": model.get("entropy_loss_ratio", 0.0),
            "soft_entropy": flag(model, "soft_entropy", True),
        }
        one = classes.lookup_free({**args, **shared})
    if branches == 1:
        return one
    return {
        "kind": "product",
        "branches": branches,
        "split": "grids",
        "quantizer": one,
        "dependency": float(model.get("dependency_loss_weight", 0.0)),
    }


def official(config: Config, side: int) -> dict[str, Any]:
    """The inverse of `tree`.

    Args:
        side: of the square grid of a branch's latents.
    """
    found: dict[str, Any] = {}
    if config.kind == "product":
        found["dependency_loss_weight"] = config.dependency
        config = config.quantizer
    if config.kind == "vq":
        return found | {
            "codebook_size": config.codebook_size,
            "codebook_embed_dim": config.dim,
            "codebook_l2_norm": config.l2_norm,
            "commit_loss_beta": config.loss_weights.get("commitment", 0.0),
            "v_patch_nums": [side],
        }
    if config.kind != "multi_scale" or config.phi is None or config.phi.ratio != 0.5:
        raise ConfigError(
            f"xqgan: quantizer '{config.kind}'; expected vq, or multi_scale with phi.ratio=0.5, of "
            "one branch or as a product: the official config knows no others"
        )
    found |= {
        "v_patch_nums": list(config.scales),
        "share_quant_resi": 0 if config.phi.count is None else config.phi.count,
    }
    atom = config.quantizer
    if atom.kind == "vq":
        return found | {"codebook_size": atom.codebook_size, "codebook_embed_dim": atom.dim}
    return found | {
        "lfq": True,
        "codebook_size": 2**atom.bits,
        "codebook_embed_dim": atom.bits,
        "codebook_l2_norm": atom.sphere,
        "scale": config.magnitude,
        "soft_entropy": atom.entropy_group == 1,
        "entropy_loss_ratio": atom.loss_weights.get("entropy_sample", 0.0),
    }


def dropout(model: Mapping[str, Any], branches: int) -> list[dict[str, Any]]:
    """Level dropout as the official model obeys it: the images are ours to choose, where the
    original takes the first of each process. One branch of VectorQuantizer2 is never told of it."""
    share, scales = model.get("codebook_drop", 0.0), model.get("v_patch_nums", _SCALES)
    told = branches > 1 or flag(model, "lfq", False)
    if not share or len(scales) == 1 or not told:
        return []
    return [{"kind": "level_dropout", "proportion": share, "start": model.get("start_drop", 1)}]


def official_dropout(regularizers: Iterable[Any]) -> dict[str, Any]:
    """The inverse of `dropout`."""
    for part in regularizers:
        if part.kind == "level_dropout":
            return {"codebook_drop": part.proportion, "start_drop": part.start}
    return {}


def entries(config: Config) -> list[Entry]:
    """The key table of a model's quantizer."""
    return [
        entry
        for one, ours, theirs in _branches(config)
        for entry in classes.entries(one, ours, theirs)
    ]


def fixed(config: Config) -> dict[str, Tensor]:
    """Hit counts, which start at none: the official training sets them in its first step; and the
    magnitudes of LFQ's scales."""
    return {
        f"{theirs}{name}": tensor
        for one, _, theirs in _branches(config)
        for name, tensor in classes.fixed(one).items()
    }


def _branches(config: Config) -> list[tuple[Config, str, str]]:
    """Config of each branch, and its prefixes here and there."""
    if config.kind != "product":
        return [(config, "quantizer.", "quantize.")]
    return [
        (config.quantizer, f"quantizer.parts.{i}.", f"quantizes.{i}.")
        for i in range(config.branches)
    ]
