"""Training a tokenizer on a mix of data sets: which of them it can take."""

from __future__ import annotations

import torch

from vistok import rates
from vistok.config import ConfigError
from vistok.core.errors import InputError
from vistok.core.rng import Rng
from vistok.core.schedules import Progress
from vistok.data.base import Facts, mismatch, of_set
from vistok.tokenizer import Tokenizer


def check_mix(data: Facts, tokenizer: Tokenizer) -> None:
    """ConfigError unless the tokenizer takes the samples of every data set of a mix, or of one.

    A causal one takes images, as clips of one frame, and clips of any number of frames that fits;
    one of any frame rate takes clips of whole patches.
    """
    for number, one in enumerate(data.sets or (data,)):
        sides, wanted = one.sides, rates.sides_for(tokenizer, one.sides)
        if tokenizer.frame_stride is not None and sides and sides[-2:] == wanted[-2:]:
            try:
                tokenizer.check_frames(one.frames or 1)
            except InputError as error:
                raise ConfigError(f"data set {number}: {error}") from None
            _check_draws(one.frames or 1, number, tokenizer)
            continue
        problem = mismatch(one, wanted, "this tokenizer")
        if problem is None:
            continue
        hint = ""
        if len(wanted) == 3 and one.frames is None:
            hint = "; only a causal tokenizer takes images besides clips"
        raise ConfigError((of_set(number, problem) if data.sets else problem) + hint)


def _check_draws(frames: int, number: int, tokenizer: Tokenizer) -> None:
    """ConfigError if a quantizer that samples draws for clips of another number of frames."""
    own, quantizer = tokenizer.shape.frames, tokenizer.quantizer
    if frames == own:
        return
    index = torch.zeros(1, dtype=torch.long, device="cpu")  # in a dry run too
    drawn = quantizer.draw(tokenizer.layout, index, Rng(0, ""), Progress(0, 1))
    if drawn is not None:
        raise ConfigError(
            f"data set {number}: {frames} frames, but quantizer {tokenizer.config.quantizer.kind} "
            f"samples codes of clips of {own}; expected {own} frames, or a quantizer that samples "
            "nothing, such as fsq"
        )
