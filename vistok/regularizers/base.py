"""Base class of regularizers, and a check of those of one tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from vistok.config import ConfigError
from vistok.config.contract import base_of, required
from vistok.core.draws import Draws
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.tokens import TokenSpec


@base_of("regularizer")
class Regularizer:
    """Samples which tokens are dropped or perturbed in a training step; other parts apply it.

    It has no forward pass and no weights.
    """

    needs_prefix: bool = False
    """True if it shortens sequences, which the decoder must then allow."""
    fills: tuple[str, ...]
    """Fields of `Draws` that it fills."""
    padding: int = 0
    """Latents behind those that tokens store of which it may show some: as many as the encoder
    has."""

    def check(self, spec: TokenSpec) -> None:
        """Raise ValueError if sequences of this spec cannot be regularized as configured."""

    @required
    def draw(self, spec: TokenSpec, index: Tensor, rng: Rng, progress: Progress) -> Draws:
        """The fields of a training step for samples `index` [B]."""
        raise NotImplementedError


def check_all(
    regularizers: Sequence[Regularizer],
    configs: Sequence[Any],
    spec: TokenSpec,
    optional_text: bool,
    redundant: int = 0,
    perturbs: bool = True,
) -> None:
    """ConfigError for what would otherwise fail when the first draws are sampled.

    Args:
        configs: of the regularizers, in the same order.
        optional_text: whether a part reads texts that may be missing, or values that may be.
        redundant: latents of the encoder that no token stores.
        perturbs: whether the quantizer knows the neighbours of a code.
    """
    claimed: dict[str, str] = {}
    for config, regularizer in zip(configs, regularizers, strict=True):
        if regularizer.needs_prefix and spec.prefix == "none":
            raise ConfigError(
                f"regularizers: '{config.kind}' shortens sequences, but this decoder serves no "
                "prefix; where it has the key `missing`, set decoder.missing to 'mask_token' or "
                f"'drop', else use another decoder or leave '{config.kind}' out"
            )
        if regularizer.padding and regularizer.padding != redundant:
            raise ConfigError(
                f"regularizers: '{config.kind}' has padding={regularizer.padding}, and the encoder "
                f"emits {redundant} latents that no token stores; expected one number "
                "(encoder.redundant)"
            )
        if "ranks" in regularizer.fills and not perturbs:
            raise ConfigError(
                f"regularizers: '{config.kind}' replaces codes by their neighbours, and this "
                "quantizer has no neighbours(queries, count); implement it, or leave "
                f"'{config.kind}' out"
            )
        for field in regularizer.fills:
            if field in claimed:
                raise ConfigError(
                    f"regularizers: '{claimed[field]}' and '{config.kind}' both fill '{field}'; "
                    "keep one of them"
                )
            claimed[field] = config.kind
        if "null" in regularizer.fills and not optional_text:
            raise ConfigError(
                f"regularizers: '{config.kind}' drops texts, and no part reads text that may "
                "be missing; set encoder.text or decoder.text, with optional: true, or use a "
                "decoder with an unconditional branch"
            )
        try:
            regularizer.check(spec)
        except ValueError as error:
            raise ConfigError(f"regularizers: '{config.kind}': {error}") from None
