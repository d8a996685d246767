"""TokenSpec: the shape of a token sequence.

A sequence is a list of blocks (small grids in decoding order); a position holds F factors, each
with its own vocabulary. Factor order is the quantizer's, fastest digit first, so regrouping a
vocabulary is mixed-radix arithmetic and exactly reversible.
"""

from __future__ import annotations

import json
import math
import zlib
from typing import Literal

from pydantic import model_validator

from vistok.config import Config
from vistok.core.errors import InputError
from vistok.tokens import radix

Prefix = Literal["none", "token", "block", "per_block"]


class TokenSpec(Config):
    """The shape of a token sequence; JSON, saved in every cache and generator."""

    blocks: tuple[tuple[int, ...], ...]
    """Grids in decoding order, (h, w), (t, h, w) or (N,)."""
    vocab: tuple[int, ...]
    """(V1, ..., VF), one size per factor; () = continuous tokens of width `dim`."""
    dim: int = 0
    """Width of the code vectors (of the tokens themselves, if continuous)."""
    branches: int = 1
    """P, groups of factors that were quantized apart (product codes)."""
    prefix: Prefix = "none"
    """Unit of a shorter sequence: none (only whole ones), token (positions), block, or per_block
    (positions inside each block)."""
    lengths: tuple[int, ...] | None = None
    """Prefix lengths that were trained; None = all."""

    @model_validator(mode="after")
    def _sane(self) -> TokenSpec:
        if not self.blocks or any(s < 1 for b in self.blocks for s in b):
            raise InputError(f"blocks={self.blocks} must be grids with sides of 1 or more")
        if any(v < 1 for v in self.vocab):
            raise InputError(f"vocab={self.vocab} must hold sizes of 1 or more")
        if self.vocab and len(self.vocab) % self.branches:
            raise InputError(f"{len(self.vocab)} factors do not split into {self.branches}")
        return self

    @property
    def block_lengths(self) -> tuple[int, ...]:
        return tuple(math.prod(block) for block in self.blocks)

    @property
    def length(self) -> int:
        """L: positions of a whole sequence."""
        return sum(self.block_lengths)

    @property
    def factor_bits(self) -> tuple[int, ...]:
        return tuple((v - 1).bit_length() for v in self.vocab)

    @property
    def bits(self) -> int:
        """Stored bits of a whole sequence: ceil(log2 V) for each factor."""
        return self.length * sum(self.factor_bits)

    @property
    def entropy_bound(self) -> float:
        """log2 of the number of different sequences."""
        return self.length * sum(math.log2(v) for v in self.vocab)

    @property
    def codebook_size(self) -> int:
        """Number of different values of one position."""
        return math.prod(self.vocab)

    @property
    def max_prefix(self) -> int:
        """The longest prefix: in positions, in blocks, or in positions of the longest block."""
        if self.prefix == "per_block":
            return max(self.block_lengths)
        return len(self.blocks) if self.prefix == "block" else self.length

    @property
    def eval_lengths(self) -> tuple[int, ...]:
        """Prefix lengths that evaluation visits: powers of two (or those trained) and the whole."""
        if self.prefix == "none":
            return (self.max_prefix,)
        if self.lengths is not None:
            return tuple(sorted({*self.lengths, self.max_prefix}))
        powers = {2**i for i in range(self.max_prefix.bit_length()) if 2**i <= self.max_prefix}
        return tuple(sorted({*powers, self.max_prefix}))

    def described(self, sample: str = "image") -> dict[str, str]:
        """Tokens, vocabulary, bits and lengths as a table for people, by title."""
        if not self.vocab:
            found = {"vocabulary": f"continuous, {self.dim} numbers per token"}
        else:
            sizes = [f"{size:,}" for size in dict.fromkeys(self.vocab)]
            times = f" ({len(self.vocab)} per token)" if len(self.vocab) > 1 else ""
            found = {"vocabulary": " x ".join(sizes) + times, f"bits/{sample}": f"{self.bits:,}"}
        unit = {"token": "tokens", "block": "blocks", "per_block": "tokens of each block"}
        lengths = "whole sequences only"
        if self.prefix != "none":
            lengths = f"{', '.join(map(str, self.eval_lengths))} {unit[self.prefix]}"
            if self.lengths is None:
                lengths = f"1 to {self.max_prefix} {unit[self.prefix]}"
        return {f"tokens/{sample}": f"{self.length:,}", **found, "lengths": lengths}

    def check_length(self, length: int) -> int:
        """`length` if a prefix of that length may be decoded; a one-line error otherwise."""
        if self.prefix == "none":
            if length != self.max_prefix:
                raise InputError(
                    f"length={length}: this tokenizer decodes only whole sequences; "
                    f"expected length={self.max_prefix} or None"
                )
        elif self.lengths is not None and length not in (*self.lengths, self.max_prefix):
            raise InputError(f"length={length}: expected one of {(*self.lengths, self.max_prefix)}")
        elif not 1 <= length <= self.max_prefix:
            unit = {"token": "tokens", "block": "blocks", "per_block": "tokens a block"}[
                self.prefix
            ]
            raise InputError(f"length={length}: expected 1..{self.max_prefix} {unit}")
        return length

    def positions_in(self, length: int) -> int:
        """Positions that a prefix keeps: of the sequence, of its first blocks, of each block."""
        if self.prefix == "per_block":
            return sum(min(length, block) for block in self.block_lengths)
        return sum(self.block_lengths[:length]) if self.prefix == "block" else length

    def regroup(self, vocab: tuple[int, ...]) -> TokenSpec:
        """The same sequence with the digits of each position grouped anew."""
        radix.groups(self.vocab, tuple(vocab))
        return self.model_copy(update={"vocab": tuple(vocab), "branches": 1})

    def fingerprint(self) -> int:
        """Two bytes that differ between specs, so that bytes are not read with the wrong one."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return zlib.crc32(text.encode()) & 0xFFFF
