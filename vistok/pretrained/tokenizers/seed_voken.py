"""What the checkpoints of TencentARC/SEED-Voken share (IBQ, Open-MAGVIT2): Lightning's state dicts.

Averaged weights lie in them under "model_ema." and the plain name without its dots; the published
numbers are theirs, so that they take the place of the plain ones, which are not kept. An export
writes them under both names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vistok.config import ConfigError
from vistok.storage.weights import WeightsError
from vistok.tokenizer import TokenizerConfig

EMA = "model_ema."
# Arguments of the Lightning module that say nothing about its networks.
SILENT = frozenset(
    "lossconfig ckpt_path ignore_keys image_key colorize_nlabels monitor learning_rate resume_lr "
    "warmup_epochs scheduler_type min_learning_rate use_ema stage use_shared_epoch max_iter wp wp0 "
    "image_pretrain_path wpe sche_type wp_iter token_factorization factorized_bits lr_drop_epoch "
    "lr_drop_iter lr_drop_rate".split()
)


def averaged(state: Mapping[str, Tensor], parts: tuple[str, ...]) -> Mapping[str, Tensor]:
    """The state dict with averaged weights in the place of the plain ones below `parts`.

    Raises WeightsError for a file that has averages of some of its weights only.
    """
    plain = [key for key in state if key.startswith(parts)]
    names = {key: f"{EMA}{key.replace('.', '')}" for key in plain}
    missing = [name for name in names.values() if name not in state]
    if len(missing) == len(plain):
        return state
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise WeightsError(
            f"missing {missing[0]}{more}; expected averages of all weights, or of none"
        )
    return {**state, **{key: state[name] for key, name in names.items()}}


def number(family: str, given: Mapping[str, Any], key: str, default: float) -> float:
    """A number of an official config; ConfigError for anything else."""
    value = given.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{family}: {key}={value!r}; expected a number")
    return value


def network_of(family: str, given: Mapping[str, Any], released: Mapping[str, Any]) -> dict:
    """`ddconfig` over the released one; ConfigError for keys that the network does not know."""
    network = given["ddconfig"]
    if not isinstance(network, Mapping) or set(network) - set(released):
        strange = sorted(set(network) - set(released)) if isinstance(network, Mapping) else network
        raise ConfigError(
            f"{family}: ddconfig: {strange!r} is not known; expected {sorted(released)}"
        )
    network = {**released, **network}
    for key in ("in_channels", "out_ch"):
        if network[key] != 3:
            raise ConfigError(f"{family}: {key}={network[key]!r}; expected 3, RGB images")
    return network


def require_kinds(family: str, config: TokenizerConfig, encoder: str, quantizer: str) -> None:
    """ConfigError unless a tokenizer has these kinds of parts, which the layout has a place for."""
    mine = config.encoder.kind, config.quantizer.kind
    if mine != (encoder, quantizer):
        raise ConfigError(
            f"{family}: encoder.kind={mine[0]}, quantizer.kind={mine[1]} have no place in the "
            f"official layout; expected {encoder} and {quantizer}"
        )
