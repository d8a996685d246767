"""The quantizers that Cosmos's configs name (NVIDIA/Cosmos-Tokenizer): FSQ, residual FSQ, VQ, LFQ,
and the continuous formulations AE and VAE.

All releases have FSQ or AE. An index of LFQ has the first channel as its highest bit there, the
lowest here: its channels are turned around. Entropies clamp probabilities at 1e-5 inside their
logarithm there. Options that only name files or shapes of indices change no numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vistok.config import ConfigError
from vistok.pretrained.base import Family, flag

FSQ: dict[str, Any] = {"quantizer": "FSQ", "embedding_dim": 6, "levels": [8, 8, 8, 5, 5, 5]}
"""That of all discrete releases."""
_LEVELS = ("quantizer._levels", "inv_quant.quantizer._levels", "quantizer.layers.0._levels")
_LFQ = {"entropy_loss_weight": 0.1, "commitment_loss_weight": 0.25, "default_temp": 0.01}
_NAMES = {"ResidualFSQ": "RESFSQ"}  # as the original's texts call it
_SIZES = (
    "levels dim embed_dim num_codebooks num_quantizers num_embeddings codebook_size codebook_dim"
)
_VQ = "beta legacy use_norm remap unknown_index sane_index_shape"
_OTHERS = "z_channels quantizer embedding_dim latent_channels formulation scale dtype entropy_loss"
READ = frozenset(
    f"{_OTHERS} keep_num_codebooks_dim persistent_quantizer {_SIZES} {_VQ}".split()
) | set(_LFQ)
"""Every key of the quantizers' own; `config` knows the network's."""
# What training alone reads: no matter to weights and codes.
_TRAINED = (
    *("loss_weights", "init", "decay", "revive_below", "cluster", "gradient", "temperature"),
    *("entropy_temperature", "entropy_over", "entropy_group", "entropy_eps"),
)


def is_continuous(official: Mapping[str, Any]) -> bool:
    """True if a config is that of a continuous tokenizer."""
    own = {"latent_channels", "formulation"} & set(official)
    return bool(own) or official.get("name") in ("CI", "ContinuousImageTokenizer")


def quantizer_found(state: Mapping[str, Tensor], channels: int) -> dict[str, Any]:
    """What a state dict without a config says of its quantizer.

    Args:
        channels: of a token's values.
    """
    told = {"embedding_dim": channels}
    if "quantizer.embedding.weight" in state:
        codes = len(state["quantizer.embedding.weight"])
        return told | {"quantizer": "VQ", "num_embeddings": codes}
    if "quantizer.mask" in state:
        return told | {"quantizer": "LFQ", "codebook_dim": channels, "codebook_size": 2**channels}
    levels = next((state[key].tolist() for key in _LEVELS if key in state), None)
    if levels is None and channels != FSQ["embedding_dim"]:
        factor = state["quant_conv.weight"].shape[0] // channels
        formulation = {"z_factor": factor, "formulation": "VAE" if factor == 2 else "AE"}
        return {"latent_channels": channels, **formulation}
    levels = FSQ["levels"] if levels is None else levels
    told |= {"quantizer": "FSQ", "levels": levels}
    depth = len({key.split(".")[2] for key in state if key.startswith("quantizer.layers.")})
    if depth:
        return told | {"quantizer": "RESFSQ", "num_quantizers": depth}
    books = channels // len(levels)
    return told if books == 1 else told | {"num_codebooks": books}


def quantizer_tree(
    family: str, full: Mapping[str, Any], continuous: bool = False
) -> dict[str, Any]:
    """Config of the quantizer; ConfigError for what is not supported or does not fit."""

    def refused(key: str, expected: str) -> ConfigError:
        return ConfigError(f"{family}: {key}={full.get(key)!r}; expected {expected}")

    if continuous:
        factors = {"AE": 1, "VAE": 2}
        if full["formulation"] not in factors:
            raise refused("formulation", "'AE' or 'VAE'")
        if full["z_factor"] != factors[full["formulation"]]:
            word = f"{factors[full['formulation']]} of formulation={full['formulation']}"
            raise refused("z_factor", word)
        return {"kind": ("none", "kl")[full["z_factor"] - 1], "dim": full["latent_channels"]}
    kind, width = _NAMES.get(full["quantizer"], full["quantizer"]), full["embedding_dim"]
    if kind in ("FSQ", "RESFSQ"):
        levels = list(full["levels"])
        books = _whole(family, full, "num_codebooks", 1) if kind == "FSQ" else 1
        read = full.get("dim") if kind == "FSQ" else None
        if read is not None and read != books * len(levels):
            raise refused("dim", f"{books * len(levels)}: projections around FSQ are not supported")
        if width != books * len(levels):
            of = f" of each of {books} codebooks" if books > 1 else ""
            raise ConfigError(
                f"{family}: embedding_dim={width} but {len(levels)} levels{of}; expected one level "
                "for each channel"
            )
        tree: dict[str, Any] = {"kind": "fsq", "levels": levels}
        if kind == "RESFSQ":
            count = _whole(family, full, "num_quantizers", 4)
            return {"kind": "residual", "levels": count, "shared": True, "quantizer": tree}
        return tree if books == 1 else {"kind": "product", "branches": books, "quantizer": tree}
    if kind == "VQ":
        if full.get("remap") is not None:
            raise refused("remap", "none: tables of other indices are not supported")
        if flag(full, "use_norm", False):
            raise refused("use_norm", "false: codes that are chosen by distance and given as "
                          "directions are not supported")  # fmt: skip
        pair = (1.0, _number(family, full, "beta", 0.25))
        codebook, commitment = pair[::-1] if flag(full, "legacy", True) else pair
        return {
            "kind": "vq",
            "codebook_size": _whole(family, full, "num_embeddings"),
            "dim": width,
            "l2_norm": False,
            "loss_weights": {"codebook": codebook, "commitment": commitment},
        }
    if kind == "LFQ":
        bits, read = _whole(family, full, "codebook_dim"), full.get("embed_dim")
        if width != bits or read not in (None, 0, bits):
            key = "embed_dim" if width == bits else "embedding_dim"
            raise refused(key, f"codebook_dim={bits}: projections around LFQ are not supported")
        weights = {name: _number(family, full, name, value) for name, value in _LFQ.items()}
        losses = {"commitment": weights["commitment_loss_weight"]}
        if flag(full, "entropy_loss", False):
            if _whole(family, full, "codebook_size") != 2**bits:
                raise refused("codebook_size", f"2 ** codebook_dim = {2**bits}")
            own = weights["entropy_loss_weight"]
            losses |= {"entropy_sample": own, "entropy_batch": -own}
        return {
            "kind": "lfq",
            "bits": bits,
            "temperature": weights["default_temp"],
            "entropy_group": min(bits, 20),
            "loss_weights": losses,
        }
    raise refused("quantizer", "FSQ, RESFSQ, VQ or LFQ")


def quantizer_official(family: Family, own: Any) -> dict[str, Any]:
    """The inverse; `Family.refuse` for another quantizer. What changes codes and is not said here
    shows in the way back (`plain`)."""
    inner = getattr(own, "quantizer", own)
    if own.kind in ("none", "kl"):
        return {"latent_channels": own.dim, "formulation": "AE" if own.kind == "none" else "VAE"}
    if inner.kind == "fsq" and own.kind in ("fsq", "product", "residual"):
        levels = list(inner.levels)
        said = {"quantizer": "FSQ", "embedding_dim": len(levels), "levels": levels}
        if own.kind == "residual":
            said |= {"quantizer": "RESFSQ", "num_quantizers": own.levels}
        if own.kind == "product":
            said |= {"num_codebooks": own.branches}
            said["embedding_dim"] *= own.branches
        return said
    weights = getattr(own, "loss_weights", {})
    if own.kind == "vq":
        codebook, commitment = (weights.get(name, 0.0) for name in ("codebook", "commitment"))
        legacy = commitment == 1.0
        return {
            "quantizer": "VQ",
            "num_embeddings": own.codebook_size,
            "embedding_dim": own.dim,
            "beta": codebook if legacy else commitment,
            "legacy": legacy,
        }
    if own.kind == "lfq":
        entropy = weights.get("entropy_sample")
        said = {
            "quantizer": "LFQ",
            "embedding_dim": own.bits,
            "codebook_dim": own.bits,
            "codebook_size": 2**own.bits,
            "commitment_loss_weight": weights.get("commitment", 0.0),
            "default_temp": own.temperature,
            "entropy_loss": entropy is not None,
        }
        return said if entropy is None else said | {"entropy_loss_weight": entropy}
    family.refuse([f"quantizer.kind={own.kind}"])
    return {}


def plain(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a quantizer that its weights and codes depend on."""
    rest = {key: value for key, value in tree.items() if key not in _TRAINED}
    if isinstance(rest.get("quantizer"), Mapping):
        rest["quantizer"] = plain(rest["quantizer"])
    return rest


def turned(quantizer: Any, axis: int = 0) -> dict[str, Any] | None:
    """Load and save of an LFQ's layer beside it, whose channels lie on `axis`; None for others."""
    if quantizer.kind != "lfq":
        return None

    def load(tensor: Tensor) -> Tensor:
        maps = tensor.squeeze(3).squeeze(2) if tensor.ndim == 4 else tensor
        return maps.flip(axis)

    def save(tensor: Tensor) -> tuple[Tensor, ...]:
        tensor = tensor.flip(axis)
        return (tensor[..., None, None] if tensor.ndim == 2 else tensor,)

    return {"load": load, "save": save}


def _whole(family: str, full: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = full.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{family}: {key}={value!r}; expected a whole number from 1 on")
    return value


def _number(family: str, full: Mapping[str, Any], key: str, default: float) -> float:
    value = full.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{family}: {key}={value!r}; expected a number")
    return float(value)
