"""Frequencies of a tokenizer's codes, which the range coder of .vtk files needs on both sides.

They are counted once from many images' tokens and kept as `frequencies.safetensors` beside the
tokenizer's weights: counts of each code at each position, or over all positions where these tables
would be too large. Their hash names them in every file that is written with them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import Tensor

from vistok.config.bounded import parse_json
from vistok.core.errors import InputError
from vistok.tokens.entropy_coding import Digits, Frequencies, range_coder
from vistok.tokens.packing import MADE_BY
from vistok.tokens.spec import TokenSpec

FILE = "frequencies.safetensors"
_CELLS = 2**22  # counts up to which each position has its own
LARGEST = 4 * _CELLS + 2**20  # bytes of a file
_POWER = 1.0  # a position's own frequencies count once it has seen as many images as codes
_NAME = 4  # hexadecimal digits; the sum of each file guards against two tables of one name
_WORD = 4  # bytes of the range coder's words


class FrequencyTable:
    """Counts of the codes of one tokenizer.

    Attributes:
        counts: of each digit (`entropy_coding.Digits`), [L or 1, K] int64. images: their number.
        name: beginning of the hash of all this.
    """

    def __init__(
        self, spec: TokenSpec, made_by: str, counts: Sequence[np.ndarray], images: int
    ) -> None:
        """made_by: `Tokenizer.codes_sha256` of the tokenizer whose codes were counted."""
        self.spec, self.made_by, self.counts, self.images = spec, made_by, list(counts), images
        digest = hashlib.sha256(json.dumps([self._record, images]).encode())
        for one in self.counts:
            digest.update(one.astype("<u4").tobytes())
        self.name = digest.hexdigest()[:_NAME]

    @property
    def _record(self) -> dict[str, str]:
        spec = json.dumps(self.spec.model_dump(mode="json"), sort_keys=True)
        return {"spec": spec, "made_by": self.made_by}

    @classmethod
    def count(cls, spec: TokenSpec, made_by: str, batches: Iterable[Tensor]) -> FrequencyTable:
        """The table of batches of indices [n, L, F]."""
        each = spec.length * sum(Digits(spec.vocab).sizes) <= _CELLS
        known, images = Frequencies(spec if each else _one_position(spec)), 0
        for indices in batches:
            symbols = known.digits.split(indices.numpy())
            images += len(symbols)
            if not each:
                symbols = symbols.reshape(-1, 1, symbols.shape[-1])
            known.add(symbols, range(symbols.shape[1]))
        if not images:
            raise InputError("no tokens to count frequencies of; expected those of many images")
        return cls(spec, made_by, [np.minimum(one, 2**32 - 1) for one in known.counts], images)

    def to_bytes(self) -> bytes:
        """A safetensors file."""
        arrays = {f"digit.{i}": one.astype(np.uint32) for i, one in enumerate(self.counts)}
        return save(arrays, {**self._record, "images": str(self.images)})

    @classmethod
    def from_bytes(cls, data: bytes) -> FrequencyTable:
        """The inverse; InputError for anything else."""
        try:
            arrays = load(data)
            head = int.from_bytes(data[:8], "little")
            about = parse_json(data[8 : 8 + head], FILE)["__metadata__"]
            spec = TokenSpec.model_validate_json(about["spec"])
            made_by, images = str(about["made_by"]), int(about["images"])
            sizes = Digits(spec.vocab).sizes
        except (SafetensorError, KeyError, TypeError, ValueError, RecursionError):
            raise InputError(
                "no frequency table; expected one that vistok frequencies made"
            ) from None
        counts = [arrays.get(f"digit.{i}") for i in range(len(sizes))]
        rows = {one.shape[0] if one is not None and one.ndim == 2 else 0 for one in counts}
        fits = rows in ({1}, {spec.length}) and len(arrays) == len(sizes)
        if not fits or any(
            one.dtype != np.uint32 or one.shape[1] != size
            for one, size in zip(counts, sizes, strict=True)
        ):
            raise InputError("damaged frequency table; count it again with vistok frequencies")
        return cls(spec, made_by, [one.astype(np.int64) for one in counts], images)

    def check(self, spec: TokenSpec, made_by: str) -> None:
        """InputError unless the codes of exactly this tokenizer were counted."""
        if self.spec != spec or self.made_by != made_by:
            raise InputError(
                f"frequencies of the codes of another tokenizer (weights {self.made_by[:MADE_BY]}) "
                f"than this one (weights {made_by[:MADE_BY]}); count again with vistok frequencies"
            )

    @cached_property
    def _models(self) -> list[list[Any]]:
        """The range coder's model of each digit of each position."""
        if len(self.counts[0]) == self.spec.length:
            known = Frequencies(self.spec)
            known.counts = self.counts
            return known.models(range(self.spec.length), _POWER)
        known = Frequencies(_one_position(self.spec))
        known.counts = self.counts
        return known.models([0], _POWER) * self.spec.length

    def encode(self, indices: np.ndarray, positions: Sequence[int]) -> bytes:
        """The codes [L, F] at `positions` as few bytes; CoderMissing without the range coder."""
        encoder = range_coder().queue.RangeEncoder()
        symbols = Digits(self.spec.vocab).split(indices[None])[0]
        for position in positions:
            for model, symbol in zip(
                self._models[position], symbols[position].tolist(), strict=True
            ):
                if model is not None:
                    encoder.encode(symbol, model)
        shortest = encoder.get_compressed().astype(">u4").tobytes()
        # The coder ends on whole words, but any number in its last interval does: the shortest.
        while shortest and (short := self._shorter(shortest, symbols[positions], positions)):
            shortest = short[0]
        return shortest

    def _shorter(self, data: bytes, symbols: np.ndarray, positions: Sequence[int]) -> list[bytes]:
        """Bytes that are one fewer and decode to the same symbols, if there are some."""
        cut = int.from_bytes(data[:-1], "big")
        found = []
        for number in (cut, cut + 1):
            if number < 256 ** (len(data) - 1):
                short = number.to_bytes(len(data) - 1, "big")
                again = self._symbols(short, positions)
                if again is not None and np.array_equal(again, symbols):
                    found.append(short)
        return found

    def decode(self, data: bytes, positions: Sequence[int]) -> np.ndarray | None:
        """The inverse: [len(positions), F] int64; None for bytes that no codes give."""
        found = self._symbols(data, positions)
        return None if found is None else Digits(self.spec.vocab).join(found)

    def _symbols(self, data: bytes, positions: Sequence[int]) -> np.ndarray | None:
        padded = data + bytes(-len(data) % _WORD)
        words = np.frombuffer(padded, ">u4").astype(np.uint32)
        decoder = range_coder().queue.RangeDecoder(words)
        symbols = np.zeros((len(positions), len(self.counts)), np.int32)
        try:
            for row, position in enumerate(positions):
                for digit, model in enumerate(self._models[position]):
                    if model is not None:
                        symbols[row, digit] = decoder.decode(model)
        except AssertionError:  # the coder's word for bytes that it cannot have written
            return None
        return symbols


def _one_position(spec: TokenSpec) -> TokenSpec:
    return spec.model_copy(update={"blocks": ((1,),), "prefix": "none", "lengths": None})
