"""LARP's quantizer between its official arguments and ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vistok.config import ConfigError
from vistok.pretrained.base import flag, warn_of_unknown

LOSS_SCALE = 0.1  # of the quantizer's losses, in the trainer
VQ = {  # defaults of the quantizer
    "codebook_size": None,
    "commitment_loss_weight": 0.25,
    "codebook_loss_weight": 1.0,
    "entropy_loss_weight": 0.0,
    "entropy_loss_temperature": 0.01,
    "l2_normalized": False,
    "stochastic": False,
    "stochastic_temperature": 1.0,
}
_SET = frozenset({"dim", "token_nums", "same_index_shape"})  # by the model itself, or of shapes


def quantizer_tree(family: str, own: Mapping[str, Any], dim: int, place: str) -> dict[str, Any]:
    """Config of the quantizer `vq` with the official arguments `own`, of codes of `dim` channels.

    Args:
        place: of these arguments in the official config, for what is refused.
    """
    warn_of_unknown(family, own, {*VQ, *_SET}, f"{place}.")
    own = {**VQ, **own}
    stochastic, l2 = (flag(own, key, False) for key in ("stochastic", "l2_normalized"))
    entropy = own["entropy_loss_weight"]
    if stochastic and not l2:
        raise ConfigError(
            f"{family}: {place}.stochastic=true with l2_normalized=false; expected true: "
            "codes are drawn by cosines"
        )
    if stochastic and entropy > 0:
        raise ConfigError(
            f"{family}: {place}.entropy_loss_weight={entropy} with stochastic=true: the "
            "original's entropy reads distances that it does not compute then; expected 0"
        )
    if not own["codebook_loss_weight"] > 0:
        raise ConfigError(
            f"{family}: {place}.codebook_loss_weight={own['codebook_loss_weight']!r}: the "
            "codebook learns by that loss; expected a number above 0"
        )
    weights = {
        "codebook": own["codebook_loss_weight"] * LOSS_SCALE,
        "commitment": own["commitment_loss_weight"] * LOSS_SCALE,
    }
    if entropy > 0:
        weights |= {"entropy_sample": entropy * LOSS_SCALE}
        weights |= {"entropy_batch": -entropy * LOSS_SCALE}
    tree = {
        "kind": "stochastic_vq" if stochastic else "vq",
        "codebook_size": own["codebook_size"],
        "dim": dim,
        "l2_norm": l2,
        "init": "kaiming",
        "entropy_temperature": own["entropy_loss_temperature"],
        "entropy_over": "local",
        "loss_weights": weights,
    }
    if stochastic:
        fixed = own["stochastic_temperature"]
        tree["temperature"] = fixed if fixed > 0 else "stored"
    return tree


def official_regularizer(quantizer: Any) -> dict[str, Any]:
    """The official quantizer of one that was trained here."""
    if quantizer.kind == "kl":
        return {"name": "skl", "args": {"codebook_size": 0}}
    weights, stochastic = quantizer.loss_weights, quantizer.kind == "stochastic_vq"
    said = {key: weights.get(key, 0.0) / LOSS_SCALE for key in ("codebook", "commitment")}
    temperature = 1.0
    if stochastic:
        temperature = -1.0 if quantizer.temperature == "stored" else quantizer.temperature
    return {
        "name": "vq",
        "args": {
            "codebook_size": quantizer.codebook_size,
            "commitment_loss_weight": said["commitment"],
            "codebook_loss_weight": said["codebook"],
            "entropy_loss_weight": weights.get("entropy_sample", 0.0) / LOSS_SCALE,
            "entropy_loss_temperature": quantizer.entropy_temperature,
            "l2_normalized": quantizer.l2_norm,
            "stochastic": stochastic,
            "stochastic_temperature": temperature,
        },
    }
