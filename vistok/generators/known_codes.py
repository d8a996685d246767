"""Codes that are known before sampling: of single positions, which are taken over, and of the first
frames of a clip (frame prediction of LARP, arXiv 2410.21264).

The known frames are a clip whose last one is held to its end, so that the tokenizer takes it as any
other clip, and gives as many tokens for it. They stand in front of the condition's last token,
which separates them from the codes that are predicted.
Letters: B batch, L positions, F factors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vistok.core.errors import InputError
from vistok.core.records import Condition
from vistok.tokens import Tokens, TokenSpec


def check_known_frames(prefix: Tokens | None, frames: int, spec: TokenSpec, samples: int) -> None:
    """InputError unless `prefix` holds whole sequences of this spec, one for each sample.

    Args:
        frames: number of known frames; for the message.
    """
    if prefix is None:
        raise InputError(
            f"this generator continues clips: give condition.prefix, the tokens of their first "
            f"{frames} frames, the last of them held to the end of the clip (vistok generate: "
            "--frames clip.mp4)"
        )
    if (prefix.spec.blocks, prefix.spec.vocab) != (spec.blocks, spec.vocab):
        raise InputError(
            f"condition.prefix is of blocks={prefix.spec.blocks}, vocab={prefix.spec.vocab}; "
            f"expected blocks={spec.blocks}, vocab={spec.vocab}: tokens of this generator's "
            "tokenizer"
        )
    if prefix.keep is not None:
        raise InputError(
            "condition.prefix is cut to prefixes; expected whole sequences: encode the known "
            "frames without a length"
        )
    try:
        prefix.check()
    except InputError as error:
        raise InputError(f"condition.prefix: {error}") from None
    if len(prefix) != samples:
        raise InputError(
            f"condition.prefix is of {len(prefix)} samples, index of {samples}; give one each"
        )


def known_codes(model: Any, condition: Condition, samples: int) -> Tensor:
    """Codes [B, L, F] of the known frames, in the vocabulary that `model`, a generator, models.

    InputError if the condition has none.
    """
    config = model.config.condition
    check_known_frames(condition.prefix, config.first_frames, model.spec, samples)
    return model.regrouped(condition.prefix).indices.long()


def check_known(known: Tokens | None, mask: Tensor | None, spec: TokenSpec, samples: int) -> None:
    """InputError unless both are None, or codes of this spec and a mask of their shape."""
    if known is None and mask is None:
        return
    if known is None or mask is None:
        given, missing = ("known", "known_mask") if mask is None else ("known_mask", "known")
        raise InputError(f"condition.{given} without condition.{missing}; give both or neither")
    if (known.spec.blocks, known.spec.vocab) != (spec.blocks, spec.vocab):
        raise InputError(
            f"condition.known is of blocks={known.spec.blocks}, vocab={known.spec.vocab}; expected "
            f"blocks={spec.blocks}, vocab={spec.vocab}: tokens of this generator's tokenizer"
        )
    try:
        known.check()
    except InputError as error:
        raise InputError(f"condition.known: {error}") from None
    if len(known) != samples:
        raise InputError(
            f"condition.known is of {len(known)} samples, index of {samples}; give one each"
        )
    if mask.dtype != torch.bool or tuple(mask.shape) != (samples, spec.length):
        raise InputError(
            f"condition.known_mask is {str(mask.dtype).removeprefix('torch.')} "
            f"{list(mask.shape)}; expected bool {[samples, spec.length]}: true where a code is "
            "taken over"
        )
    if known.keep is not None and (mask.to(known.keep.device) & ~known.kept()).any():
        raise InputError(
            "condition.known_mask is true behind the prefix of condition.known, where there are no "
            "codes; expected it false there"
        )
