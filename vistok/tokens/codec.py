"""A .vtk file: the tokens of one image or clip, safe to keep, to send and to take from strangers.

bytes    content
3        "vtk"
1        version (high half), coder (low half): 0 packed, 1 range coder
2        only of the range coder: beginning of the hash of its frequency table
3 to 40  header of `tokens.packing`: hash of the spec, kept length, size, fps, hash of the tokenizer
...      codes: ceil(log2 V) bits per factor, or the range coder's bytes; whichever is shorter
4        CRC-32 of all before the codes, and of the packed codes

The range coder needs the frequencies of the codes, which both sides keep with the tokenizer; the
file names them. Reading never runs code of a file, reads no more than a file of that tokenizer can
have, and refuses in one line what another tokenizer wrote and what is damaged.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vistok.core.errors import InputError
from vistok.tokens.frequency_table import FrequencyTable
from vistok.tokens.packing import MADE_BY, most_bytes, pack, unpack
from vistok.tokens.spec import TokenSpec
from vistok.tokens.tokens import Tokens, gathered, kept_positions, read_header

SUFFIX = ".vtk"
MAGIC, VERSION = b"vtk", 1
_PACKED, _RANGE = 0, 1
_START, _TABLE, _SUM = 4, 2, 4  # bytes
_DAMAGED = "damaged: its checksum is not that of its content; copy it again, or encode again"


class Codec:
    """Writes and reads the files of one tokenizer.

    Attributes:
        most: bytes of its largest file.
    """

    def __init__(
        self,
        spec: TokenSpec,
        made_by: str,
        table: FrequencyTable | None = None,
        name: str = "this one",
    ) -> None:
        """Codec of one tokenizer's tokens.

        Args:
            made_by: its `Tokenizer.codes_sha256`.
            table: frequencies of its codes; None = packed.
            name: how errors call it.
        Raises InputError for continuous tokens and for a table of another tokenizer.
        """
        if not spec.vocab:
            raise InputError("continuous tokens have no bytes; quantize them first")
        if table is not None:
            table.check(spec, made_by)
        self.name = name
        self.spec, self.made_by, self.table = spec, made_by[:MADE_BY], table
        self.most = _START + _TABLE + most_bytes(spec) + _SUM

    def write(self, tokens: Tokens) -> list[bytes]:
        """One file per sample; CoderMissing if there is a table and no range coder."""
        if tokens.spec != self.spec:
            raise InputError("tokens of another spec than the codec's; write them with their own")
        tokens = replace(tokens, made_by=self.made_by).to("cpu")
        mask, digits = tokens.kept().numpy(), tokens.indices.numpy()
        files = []
        for row, string in enumerate(tokens.to_bytes()):
            positions = mask[row].nonzero()[0]
            size = -(-len(positions) * sum(self.spec.factor_bits) // 8)
            header, codes = string[: len(string) - size], string[len(string) - size :]
            before, payload = _start(_PACKED) + header, codes
            if self.table is not None:
                coded = self.table.encode(digits[row], positions)
                if _TABLE + len(coded) < len(codes):
                    name = bytes.fromhex(self.table.name)
                    before, payload = _start(_RANGE) + name + header, coded
            files.append(before + payload + _sum(before, codes))
        return files

    def read(self, data: bytes) -> Tokens:
        """The tokens of one file, exactly; InputError says in one line why there are none."""
        if len(data) > self.most:
            raise InputError(
                f"more than {self.most} bytes, the most that a file of this tokenizer has; "
                "expected one that it wrote"
            )
        if data[: len(MAGIC)] != MAGIC:
            raise InputError(f"no {SUFFIX} file: it does not begin with '{MAGIC.decode()}'")
        if len(data) < _START + _SUM:
            raise InputError(f"{len(data)} bytes are too few; is the file cut off?")
        version, coder = divmod(data[len(MAGIC)], 16)
        if version != VERSION or coder not in (_PACKED, _RANGE):
            raise InputError(
                f"version {version}, coder {coder}; expected version {VERSION} and coder "
                f"{_PACKED} or {_RANGE}: use a newer vistok, if the file is not damaged"
            )
        body, check = data[_START:-_SUM], data[-_SUM:]
        if coder == _PACKED and _sum(data[:-_SUM]) != check:
            raise InputError(_DAMAGED)
        table, body = (body[:_TABLE].hex(), body[_TABLE:]) if coder == _RANGE else ("", body)
        header, codes = read_header(body, self.spec)
        self._check_maker(header.made_by)
        positions = kept_positions(header, self.spec)
        if coder == _PACKED:
            digits = unpack(codes, len(positions), self.spec.factor_bits)
        else:
            before = data[: len(data) - _SUM - len(codes)]
            digits = self._decoded(table, codes, positions, before, check)
        return gathered(self.spec, [(header, positions, digits)])

    def _check_maker(self, made_by: str | None) -> None:
        if made_by != self.made_by:
            raise InputError(
                f"made by another tokenizer (weights {made_by}) than {self.name} "
                f"(weights {self.made_by}); decode it with the one that encoded it"
            )

    def _decoded(
        self, name: str, codes: bytes, positions: Sequence[int], before: bytes, check: bytes
    ) -> np.ndarray:
        """Digits [n, F] of the range coder's bytes."""
        if self.table is None or self.table.name != name:
            here = "here are none" if self.table is None else f"here are {self.table.name}"
            raise InputError(
                f"its codes were written with the frequencies {name}, and {here}; give the file "
                "that it was encoded with (--frequencies FILE)"
            )
        digits = self.table.decode(codes, positions)
        # Of the codes, not of their bytes: a coder of another version may read other codes.
        if digits is None or _sum(before, pack(digits, self.spec.factor_bits)) != check:
            raise InputError(_DAMAGED)
        return digits


def _start(coder: int) -> bytes:
    return MAGIC + bytes([VERSION << 4 | coder])


def _sum(*parts: bytes) -> bytes:
    value = 0
    for part in parts:
        value = zlib.crc32(part, value)
    return value.to_bytes(_SUM, "little")
