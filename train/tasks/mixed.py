"""Training a tokenizer on a mix of data sets: which of them it can take."""

from __future__ import annotations

from vistok import rates
from vistok.config import ConfigError
from vistok.core.errors import InputError
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
            continue
        problem = mismatch(one, wanted, "this tokenizer")
        if problem is None:
            continue
        hint = ""
        if len(wanted) == 3 and one.frames is None:
            hint = "; only a causal tokenizer takes images besides clips"
        raise ConfigError((of_set(number, problem) if data.sets else problem) + hint)
