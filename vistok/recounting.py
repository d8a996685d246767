"""Sequences of other lengths, of tokenizers whose tokens are a set of any number (GPSToken).

Part of `Tokenizer`. A length is no prefix there: the image is encoded anew into so many tokens, and
their spec says how many they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from vistok.core.errors import InputError
from vistok.tokens import TokenSpec


class Recounts:
    """Any number of tokens for an image, of a `Tokenizer` whose parts both allow it."""

    @property
    def any_count(self) -> bool:
        """True if `encode` takes any length and `decode` any number of tokens: continuous ones,
        since files of codes are read by one spec."""
        return self.encoder.any_count and self.decoder.any_count and not self.spec().vocab

    def check_length(self, length: int) -> int:
        """`length` if images can be encoded into so many tokens, or cut to them; InputError
        otherwise."""
        if not self.any_count:
            return self.spec().check_length(length)
        self.encoder.check_count(length)
        return length

    def count_of(self, length: int | Sequence[int] | Tensor | None) -> int | None:
        """The number of tokens that `encode` makes of an image; None = the spec's.

        InputError for several lengths, and for one that is no number of tokens.
        """
        if length is None or not self.any_count:
            return None
        if not isinstance(length, int) or isinstance(length, bool):
            raise InputError(
                f"length={_told(length)}: this tokenizer makes one number of tokens of all images "
                "of a batch; expected one whole number"
            )
        return self.check_length(length)

    def recounted(self, count: int) -> TokenSpec:
        """The spec of sequences of so many tokens."""
        return self.spec().model_copy(update={"blocks": ((count,),)})


def _told(length: Any) -> Any:
    return length.tolist() if isinstance(length, Tensor) else length
