"""A .vtk file: the tokens of one image or clip, safe to keep, to send and to take from strangers.

bytes    content
3        "vtk"
1        version (high half), coder (low half): 0 packed, 1 range coder; +8: a label follows
2        only of the range coder: beginning of the hash of its frequency table
...      only with a label (`tokens.labels`): the file name, and the tiles of a larger image
3 to 40  header of `tokens.packing`: hash of the spec, kept length, size, fps, hash of the tokenizer
...      codes: ceil(log2 V) bits per factor, or the range coder's bytes; whichever is shorter.
         Of several tiles one after the other, each of the range coder behind its number of bytes
4        CRC-32 of all before the codes, and of the packed codes

The range coder needs the frequencies of the codes, which both sides keep with the tokenizer; the
file names them. Reading never runs code of a file, reads no more than a file of that tokenizer can
have, and refuses in one line what another tokenizer wrote and what is damaged. Files without a
label are those of earlier releases, byte for byte.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vistok.core.errors import InputError
from vistok.core.regular_files import open_regular
from vistok.tokens.frequency_table import FrequencyTable
from vistok.tokens.labels import LONGEST, Label, Record
from vistok.tokens.packing import (
    MADE_BY,
    Header,
    most_bytes,
    pack,
    prefixed,
    taken,
    unpack,
    varint,
    varints,
)
from vistok.tokens.spec import TokenSpec
from vistok.tokens.tokens import Tokens, gathered, kept_positions, read_header

SUFFIX = ".vtk"
MAGIC, VERSION = b"vtk", 1
_PACKED, _RANGE = 0, 1
_CODERS = {_PACKED: "packed codes", _RANGE: "codes of the range coder"}
_HEADER = 64  # bytes of a file that hold its header, at least
_LABEL = 8  # of the low half of the fourth byte
_START, _TABLE, _SUM = 4, 2, 4  # bytes
_DAMAGED = "damaged: its checksum is not that of its content; copy it again, or encode again"


class Codec:
    """Writes and reads the files of one tokenizer.

    Attributes:
        most: bytes of its largest file without a label.
    """

    def __init__(
        self,
        spec: TokenSpec,
        made_by: str,
        table: FrequencyTable | None = None,
        name: str = "this one",
        block: TokenSpec | None = None,
    ) -> None:
        """Codec of one tokenizer's tokens.

        Args:
            made_by: its `Tokenizer.codes_sha256`.
            table: frequencies of its codes; None = packed.
            name: how errors call it.
            block: spec of one block of a causal tokenizer, whose streams are files of blocks.
        Raises InputError for continuous tokens and for a table of another tokenizer.
        """
        if not spec.vocab:
            raise InputError("continuous tokens have no bytes; quantize them first")
        if table is not None:
            table.check(spec, made_by)
        self.name, self.block = name, block
        self.spec, self.made_by, self.table = spec, made_by[:MADE_BY], table
        self.most = _START + _TABLE + most_bytes(spec) + _SUM

    def write(self, tokens: Tokens, names: Sequence[str] | None = None) -> list[bytes]:
        """One file per sample; CoderMissing if there is a table and no range coder.

        Args:
            names: file name of each sample, which its file keeps; None = none.
        """
        labels = [None] * len(tokens) if names is None else [Label(name) for name in names]
        if len(labels) != len(tokens):
            raise InputError(f"{len(labels)} names for {len(tokens)} samples; give one for each")
        return [
            self._file(tokens.select(slice(row, row + 1)), label)
            for row, label in enumerate(labels)
        ]

    def write_record(self, record: Record) -> bytes:
        """The file of one image, with its name and tiles as far as it has them."""
        label = Label(record.name, record.tiles, record.chunks)
        expected = 1 if label.count is None else label.count
        if len(record.tokens) != expected:
            raise InputError(
                f"{len(record.tokens)} samples of tokens for {expected} tiles or windows"
            )
        return self._file(record.tokens, label if label else None)

    def _file(self, tokens: Tokens, label: Label | None) -> bytes:
        if tokens.spec != self._spec(label):
            raise InputError("tokens of another spec than the codec's; write them with their own")
        tokens = replace(tokens, made_by=self.made_by).to("cpu")
        mask, digits = tokens.kept().numpy(), tokens.indices.numpy()
        strings = tokens.to_bytes()
        positions = mask[0].nonzero()[0]
        size = -(-len(positions) * sum(self.spec.factor_bits) // 8)
        header = strings[0][: len(strings[0]) - size]
        if any(not one.startswith(header) for one in strings):
            raise InputError(
                "tiles of one image differ in length, or windows of one clip; encode to one length"
            )
        codes = b"".join(one[len(header) :] for one in strings)
        tiled = label is not None and label.count is not None
        about, flag = (b"", 0) if label is None else (label.write(), _LABEL)
        before, payload = _start(_PACKED | flag) + about + header, codes
        if self.table is not None and tokens.spec == self.spec:
            parts = [self.table.encode(row, positions) for row in digits]
            coded = b"".join(varint(len(p)) + p for p in parts) if tiled else parts[0]
            if _TABLE + len(coded) < len(codes):
                name = bytes.fromhex(self.table.name)
                before, payload = _start(_RANGE | flag) + name + about + header, coded
        return before + payload + _sum(before, codes)

    def _spec(self, label: Label | None) -> TokenSpec:
        """The spec of each part of a file; InputError for a stream of no causal tokenizer."""
        if label is None or label.chunks is None or not label.chunks.stream:
            return self.spec
        if self.block is None:
            raise InputError(
                f"a stream of a causal tokenizer; {self.name} is not causal: decode it with the "
                "one that encoded it"
            )
        return self.block

    def most_of(self, beginning: bytes) -> int:
        """Most bytes of a file that begins with these (`LONGEST` of them, or all it has)."""
        if len(beginning) <= _START or not beginning[_START - 1] & _LABEL:
            return self.most
        at = _START + _TABLE * (beginning[_START - 1] & 7 == _RANGE)
        label, rest = Label.read(beginning[at:])
        count = 1 if label.count is None else label.count
        return len(beginning) - len(rest) + count * self.most

    def read_file(self, path: str | os.PathLike[str]) -> Record:
        """The content of a file; InputError names it and says why there is none."""
        try:
            with open_regular(path, "rb") as file:
                data = file.read(LONGEST)
                data += file.read(max(0, self.most_of(data) + 1 - len(data)))
            return self.record(data)
        except InputError as error:
            text = str(error)
            where = os.fspath(path)
            raise InputError(text if text.startswith(where) else f"{where}: {text}") from None

    def read(self, data: bytes) -> Tokens:
        """The tokens of one file, exactly, of all its tiles; InputError says why there are none."""
        return self.record(data).tokens

    def record(self, data: bytes) -> Record:
        """The tokens of one file, its name and its tiles; InputError says why there are none."""
        if len(data) > self.most and len(data) > (most := self.most_of(data[:LONGEST])):
            raise InputError(
                f"more than {most} bytes, the most that a file of this tokenizer has; "
                "expected one that it wrote"
            )
        if data[: len(MAGIC)] != MAGIC:
            raise InputError(f"no {SUFFIX} file: it does not begin with '{MAGIC.decode()}'")
        if len(data) < _START + _SUM:
            raise InputError(f"{len(data)} bytes are too few; is the file cut off?")
        version, coder = divmod(data[len(MAGIC)], 16)
        labeled, coder = coder & _LABEL, coder & ~_LABEL
        if version != VERSION or coder not in (_PACKED, _RANGE):
            raise InputError(
                f"version {version}, coder {coder}; expected version {VERSION} and coder "
                f"{_PACKED} or {_RANGE}: use a newer vistok, if the file is not damaged"
            )
        body, check = data[_START:-_SUM], data[-_SUM:]
        if coder == _PACKED and _sum(data[:-_SUM]) != check:
            raise InputError(_DAMAGED)
        table, body = (body[:_TABLE].hex(), body[_TABLE:]) if coder == _RANGE else ("", body)
        label, body = Label.read(body) if labeled else (Label(), body)
        spec = self._spec(label)
        header, codes = read_header(body, spec)
        self._check_maker(header.made_by)
        positions = kept_positions(header, spec)
        if coder == _PACKED:
            rows = self._unpacked(codes, len(positions), label)
        else:
            before = data[: len(data) - _SUM - len(codes)]
            rows = self._decoded(table, codes, positions, before, check, label)
        tokens = gathered(spec, [(header, positions, digits) for digits in rows])
        return Record(tokens, label.name, label.tiles, label.chunks)

    def _unpacked(self, codes: bytes, positions: int, label: Label) -> list[np.ndarray]:
        """Digits [n, F] of each tile (of the image, if it has none) of packed codes."""
        if label.count is None:
            return [unpack(codes, positions, self.spec.factor_bits)]
        size, count = -(-positions * sum(self.spec.factor_bits) // 8), label.count
        if len(codes) != size * count:
            raise InputError(f"{len(codes)} bytes of codes; expected {size * count}")
        strings = [codes[at * size : (at + 1) * size] for at in range(count)]
        return [unpack(one, positions, self.spec.factor_bits) for one in strings]

    def _check_maker(self, made_by: str | None) -> None:
        if made_by != self.made_by:
            raise InputError(
                f"made by another tokenizer (weights {made_by}) than {self.name} "
                f"(weights {self.made_by}); decode it with the one that encoded it"
            )

    def _decoded(
        self,
        name: str,
        codes: bytes,
        positions: np.ndarray,
        before: bytes,
        check: bytes,
        label: Label,
    ) -> list[np.ndarray]:
        """Digits [n, F] of each tile (of the image, if it has none) of the range coder's bytes."""
        if self.table is None or self.table.name != name:
            here = "here are none" if self.table is None else f"here are {self.table.name}"
            raise InputError(
                f"its codes were written with the frequencies {name}, and {here}; give the file "
                "that it was encoded with (--frequencies FILE)"
            )
        strings = [codes]
        if label.count is not None:
            strings, at = [], 0
            for _ in range(label.count):
                (size,), at = varints(codes, at, 1)
                string, at = taken(codes, at, size)
                strings.append(string)
            if at != len(codes):
                raise InputError(_DAMAGED)
        rows = [self.table.decode(string, positions) for string in strings]
        # Of the codes, not of their bytes: a coder of another version may read other codes.
        wrong = any(digits is None for digits in rows)
        if wrong or _sum(before, *(pack(one, self.spec.factor_bits) for one in rows)) != check:
            raise InputError(_DAMAGED)
        return rows


@dataclass(frozen=True)
class Summary:
    """Facts that a file tells without its tokenizer."""

    size: int  # bytes
    coder: str
    label: Label
    header: Header | None  # None: it keeps prefixes, which only the tokenizer's spec can read


def summary(path: str | os.PathLike[str]) -> Summary:
    """The outside of a file; InputError names it, if it is none, or damaged as far as that shows
    without its tokenizer."""
    with open_regular(path, "rb") as file:
        beginning = file.read(LONGEST + _HEADER)
        size = os.fstat(file.fileno()).st_size
    try:
        if beginning[: len(MAGIC)] != MAGIC or len(beginning) < _START + _SUM:
            raise InputError(f"no {SUFFIX} file: it does not begin with '{MAGIC.decode()}'")
        version, coder = divmod(beginning[len(MAGIC)], 16)
        labeled, coder = coder & _LABEL, coder & ~_LABEL
        if version != VERSION or coder not in _CODERS:
            raise InputError(
                f"version {version}, coder {coder}; expected version {VERSION} and coder "
                f"{_PACKED} or {_RANGE}: use a newer vistok, if the file is not damaged"
            )
        body = beginning[_START + _TABLE * (coder == _RANGE) :]
        label, body = Label.read(body) if labeled else (Label(), body)
        header = None if prefixed(body) else Header.read(body, 0)[0]
    except InputError as error:
        raise InputError(f"{os.fspath(path)}: {error}") from None
    return Summary(size, _CODERS[coder], label, header)


def _start(coder: int) -> bytes:
    return MAGIC + bytes([VERSION << 4 | coder])


def _sum(*parts: bytes) -> bytes:
    value = 0
    for part in parts:
        value = zlib.crc32(part, value)
    return value.to_bytes(_SUM, "little")
