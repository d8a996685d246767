"""XQ-GAN's quantizer classes as quantizers of vistok, with their key tables (arXiv 2412.01762).

VectorQuantizer is the vq atom, VectorQuantizer2 (VAR's) and LFQ are multi_scale over vq and over
lfq. Each function takes the arguments of the official constructor and gives a config tree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vistok.config import ConfigError
from vistok.pretrained.base import Entry, own, pair, same

INERT = ("*ema_vocab_hit_SV", "*.scaler")
"""Counters of hits, and magnitudes that follow from the config."""

_EPS_SOFT, _EPS_HARD, _TEMPERATURE_HARD = 1e-8, 1e-5, 0.01


def vector_quantizer(args: Mapping[str, Any]) -> dict[str, Any]:
    """VectorQuantizer: one scale, both sides normalized unless codebook_norm is false."""
    norm = args.get("codebook_norm", True)
    return {
        "kind": "vq",
        "codebook_size": args.get("vocab_size", 8192),
        "dim": args.get("z_channels", 32),
        "l2_norm": norm,
        "init": "sphere" if norm else "uniform",
        "loss_weights": {"codebook": 1.0, "commitment": args.get("beta", 0.25)},
    }


def vector_quantizer_2(args: Mapping[str, Any]) -> dict[str, Any]:
    """VectorQuantizer2: residual scales over one codebook whose rows are added as stored.

    The original sums commitment losses over scales, where it averages codebook losses: that is the
    mean, with a weight that grows with the number of scales.
    """
    cosine, scales = args.get("using_znorm", True), list(args["v_patch_nums"])
    return {
        "kind": "multi_scale",
        "scales": scales,
        "phi": phi(args),
        "quantizer": {
            "kind": "vq",
            "codebook_size": args["vocab_size"],
            "dim": args["Cvae"],
            "l2_norm": False,
            "search": "cosine" if cosine else "euclidean",
            "init": "sphere" if cosine else "uniform",
            "loss_weights": {"codebook": 1.0, "commitment": args.get("beta", 0.25) * len(scales)},
        },
    }


def lookup_free(args: Mapping[str, Any]) -> dict[str, Any]:
    """LFQ: residual scales over signs; using_znorm makes it BSQ.

    Entropies are taken over the images that keep a scale. The original gathers two images instead
    (`entropy_images: first_two`, if soft_entropy) and divides by the share of active ones once more
    (`entropy_by_share: true`).

    ConfigError unless codebook_size is 2**Cvae, and for a single scale, which the original divides
    by zero for.
    """
    bits, size = args["Cvae"], args["codebook_size"]
    if size != 2**bits:
        raise ConfigError(
            f"codebook_size={size}: LFQ of {bits} channels has 2**{bits} codes; expected {2**bits}"
        )
    if len(args["v_patch_nums"]) < 2:
        raise ConfigError(
            f"v_patch_nums={list(args['v_patch_nums'])}: LFQ divides by the number of scales less "
            "one; expected two scales or more"
        )
    weight, soft = args.get("entropy_weight", 0.1), args.get("soft_entropy", True)
    sphere = args.get("using_znorm", False)
    return {
        "kind": "multi_scale",
        "scales": list(args["v_patch_nums"]),
        "phi": phi(args),
        "normalize": sphere,
        "magnitude": float(args.get("scale", 1.0)),
        "quantizer": {
            "kind": "lfq",
            "bits": bits,
            "sphere": sphere,
            "temperature": 1.0 if soft else _TEMPERATURE_HARD,
            "entropy_group": 1 if soft else bits,
            "entropy_eps": _EPS_SOFT if soft else _EPS_HARD,
            "loss_weights": {
                "commitment": args.get("beta", 0.25),
                "entropy_sample": weight * args.get("sample_minimization_weight", 1.0),
                "entropy_batch": -weight * args.get("batch_maximization_weight", 1.0),
            },
        },
    }


def phi(args: Mapping[str, Any]) -> dict[str, Any] | None:
    """quant_resi and share_quant_resi -> config of the convolutions; None without any."""
    ratio, share = abs(args.get("quant_resi", 0.5)), args.get("share_quant_resi", 4)
    if ratio <= 1e-6:
        return None
    each = args.get("default_qresi_counts", 0) or None
    return {"ratio": ratio, "count": share or each}


def entries(config: Any, ours: str, theirs: str) -> list[Entry]:
    """Key table of a quantizer (vq, or multi_scale of vq or lfq) under the prefixes `ours` and
    `theirs`, both with their dot at the end."""
    if config.kind == "vq":
        return _codebook(ours, theirs)
    table = [] if config.quantizer.kind == "lfq" else _codebook(f"{ours}atoms.0.", theirs)
    if config.phi is not None:
        for mine, official in _phis(config.phi.count, len(config.scales)):
            table += pair(f"{ours}phis.{mine}", f"{theirs}quant_resi.{official}")
    return table


def fixed(config: Any) -> dict[str, Tensor]:
    """Official tensors that follow from the config of a quantizer, by their names."""
    if config.kind == "vq":
        return {"ema_vocab_hit_SV": torch.zeros(config.codebook_size)}
    atom, scales = config.quantizer, len(config.scales)
    if atom.kind == "vq":
        return {"ema_vocab_hit_SV": torch.zeros(scales, atom.codebook_size)}
    magnitudes = config.magnitude ** torch.arange(scales)
    if atom.sphere:
        magnitudes = magnitudes / math.sqrt(atom.bits)
    return {"ema_vocab_hit_SV": torch.zeros(scales, 2**atom.bits), "scaler": magnitudes}


def _codebook(ours: str, theirs: str) -> list[Entry]:
    return [
        same(f"{ours}codebook", f"{theirs}embedding.weight"),
        *own(f"{ours}usage", f"{ours}filled"),
    ]


def _phis(count: int | None, scales: int) -> Sequence[tuple[int, str]]:
    """(our number, official name below quant_resi): one for each scale, one for all, or some."""
    if count == 1:
        return [(0, "qresi")]
    names = "{}" if count is None else "qresi_ls.{}"
    return [(number, names.format(number)) for number in range(count or scales)]
