"""Sequences of other lengths, of tokenizers whose tokens are a set of any number (GPSToken).

Part of `Tokenizer`. A length is no prefix there: the image is encoded anew into so many tokens, and
their spec says how many they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from vistok.config import validate
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

    def tiled(self, tiles: int) -> Any:
        """A tokenizer of images `tiles` times as large on each side, of the same weights (copied).

            larger = tokenizer.tiled(2)  # 512 pixels of a tokenizer of 256
            tokens = larger.encode(pixels)  # four times as many

        InputError unless encoder and decoder work in tiles (kinds regions and splat).
        """
        parts = self.config.encoder, self.config.decoder
        if not all(hasattr(part, "tiles") for part in parts):
            raise InputError(
                f"tiled({tiles}): encoder.kind={parts[0].kind} and decoder.kind={parts[1].kind} do "
                "not work in tiles; use vistok.tiling, which cuts any image"
            )
        tree = self.config.model_dump(mode="json")
        tree["image_size"] = [side * tiles for side in self.config.image_size]
        for part in ("encoder", "decoder"):
            tree[part]["tiles"] *= tiles
        larger = type(self)(validate(type(self.config), tree))
        larger.load_state_dict(self.state_dict())
        return larger.to(next(self.parameters())).train(self.training)


def _told(length: Any) -> Any:
    return length.tolist() if isinstance(length, Tensor) else length
