"""Files of tokens: exact, small, and refused when damaged or of another tokenizer."""

import sys

import numpy as np
import pytest
import torch

from vistok.core.errors import InputError
from vistok.tokens import Tokens, TokenSpec
from vistok.tokens.codec import Codec
from vistok.tokens.entropy_coding import CoderMissing
from vistok.tokens.frequency_table import FrequencyTable
from vistok.tokens.labels import Record, Tiled

MADE_BY = "0123456789abcdef" * 4
SPECS = {
    "codes": TokenSpec(blocks=((16,),), vocab=(4096,), prefix="token"),
    "fsq": TokenSpec(blocks=((12,),), vocab=(8, 5, 5), prefix="token"),
    "scales": TokenSpec(blocks=((1, 1), (2, 2), (3, 3)), vocab=(300, 300), prefix="block"),
    "clips": TokenSpec(blocks=((4,), (4,)), vocab=(2**18,), prefix="per_block"),
    "bits": TokenSpec(blocks=((128,),), vocab=(2,) * 128, prefix="token"),
}


def skewed(spec: TokenSpec, count: int, seed: int = 0, **rest) -> Tokens:
    """Tokens whose small codes are common."""
    noise = np.random.Generator(np.random.Philox(seed)).random(
        (count, spec.length, len(spec.vocab))
    )
    codes = np.floor(noise**4 * spec.vocab).astype(np.int64)
    return Tokens.of(spec, torch.from_numpy(codes), **{"size": (1, 256, 256), **rest})


def table(spec: TokenSpec, count: int = 200) -> FrequencyTable:
    pytest.importorskip("constriction")
    return FrequencyTable.count(spec, MADE_BY, [skewed(spec, count, seed=1).indices])


def lengths(spec: TokenSpec) -> list[int]:
    return [1, 2, spec.max_prefix]


def same(one: Tokens, other: Tokens) -> bool:
    keeps = one.keep is None and other.keep is None
    keeps = keeps or torch.equal(one.keep, other.keep)
    return keeps and torch.equal(one.indices, other.indices) and one.size == other.size


@pytest.mark.parametrize("coded", [False, True], ids=["packed", "range"])
@pytest.mark.parametrize("name", SPECS)
def test_round_trip(name, coded):
    spec = SPECS[name]
    codec = Codec(spec, MADE_BY, table(spec, 20 if name == "bits" else 2000) if coded else None)
    for length in (None, *lengths(spec)):
        tokens = skewed(spec, 2, fps=12.5 if name == "clips" else None)
        tokens = tokens if length is None else tokens.prefix(length)
        tokens.indices[0, 0] = torch.tensor(spec.vocab) - 1  # the last code of every factor
        for row, data in enumerate(codec.write(tokens)):
            back = codec.read(data)
            assert same(back, tokens.select([row])) and back.fps == tokens.fps
            assert back.made_by == MADE_BY[:8] and len(data) <= codec.most
    packed = Codec(spec, MADE_BY).write(tokens)
    sizes = list(zip(map(len, codec.write(tokens)), map(len, packed), strict=True))
    assert all(small <= large for small, large in sizes)
    if coded and name not in ("clips", "codes"):  # of which the low digits are all alike
        assert sizes[1][0] < sizes[1][1]


def test_a_packed_file_is_the_packed_string_and_eight_bytes():
    tokens = skewed(SPECS["codes"], 1, made_by=MADE_BY)
    (data,), (string,) = Codec(SPECS["codes"], MADE_BY).write(tokens), tokens.to_bytes()
    assert data[:3] == b"vtk" and data[4:-4] == string and len(data) == len(string) + 8


def test_frequencies_pay():
    """Near the entropy of the codes: no word of the coder is filled up."""
    spec = SPECS["codes"]
    known = table(spec, 4000)
    positions, total = list(range(16)), 0.0
    tokens = skewed(spec, 60, seed=2)
    for row in tokens.indices.numpy():
        total += 8 * len(known.encode(row, positions))
    share = np.diff((np.arange(4097) / 4096) ** 0.25)
    entropy = -16 * float((share * np.log2(share)).sum())
    assert entropy < 160 and total / 60 < 1.1 * entropy + 8  # of 192 bits


@pytest.mark.parametrize("coded", [False, True], ids=["packed", "range"])
def test_damage_is_refused_or_changes_nothing(coded):
    spec = SPECS["fsq"]
    codec = Codec(spec, MADE_BY, table(spec) if coded else None)
    tokens = skewed(spec, 1).prefix(9)
    (data,) = codec.write(tokens)
    assert data[3] & 15 == int(coded)
    damaged = [
        bytes([*data[:at], data[at] ^ mask, *data[at + 1 :]])
        for at in range(len(data))
        for mask in (1, 2, 16, 128, 255)
    ]
    damaged += [data[:size] for size in range(len(data))]
    damaged += [data + b"\0", data + data, b"\0" + data, data[4:], b""]
    refused = 0
    for one in damaged:
        try:
            assert same(codec.read(one), tokens)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused >= len(damaged) - 8  # bits behind the coder's last one may say anything


def test_files_of_others(fails):
    spec = SPECS["codes"]
    tokens = skewed(spec, 1)
    known = table(spec)
    (packed,), (coded,) = (Codec(spec, MADE_BY, one).write(tokens) for one in (None, known))
    other = "f" * 64
    for data in (packed, coded):
        with fails(InputError, "another tokenizer \\(weights 01234567\\).*ffffffff"):
            Codec(spec, other).read(data)
        with fails(InputError, "another token spec"):
            Codec(SPECS["fsq"], MADE_BY).read(data)
    with fails(InputError, f"frequencies {known.name}, and here are none; .*--frequencies"):
        Codec(spec, MADE_BY).read(coded)
    later = table(spec, 201)
    with fails(InputError, f"frequencies {known.name}, and here are {later.name}"):
        Codec(spec, MADE_BY, later).read(coded)
    with fails(InputError, "frequencies of the codes of another tokenizer"):
        Codec(spec, other, known)
    with fails(InputError, "no .vtk file"):
        Codec(spec, MADE_BY).read(b"RIFF" + packed)
    with fails(InputError, "version 2, coder 0; expected version 1"):
        Codec(spec, MADE_BY).read(packed[:3] + b"\x20" + packed[4:])
    with fails(InputError, "more than .* bytes"):
        Codec(spec, MADE_BY).read(packed + bytes(1000))
    with fails(InputError, "another spec"):
        Codec(SPECS["fsq"], MADE_BY).write(tokens)
    with fails(InputError, "continuous"):
        Codec(TokenSpec(blocks=((4,),), vocab=(), dim=3), MADE_BY)


def test_a_code_outside_the_vocabulary_is_refused(fails):
    """Right sum, wrong content: made by hand, not by damage."""
    import zlib

    spec = SPECS["fsq"]
    (data,) = Codec(spec, MADE_BY).write(skewed(spec, 1))
    forged = data[: -4 - 14] + b"\xff" * 14
    forged += zlib.crc32(forged).to_bytes(4, "little")
    with fails(InputError, "outside the codebook|index 7 of factor 1"):
        Codec(spec, MADE_BY).read(forged)


def test_tables_as_files(fails, monkeypatch):
    spec = SPECS["codes"]
    known = table(spec)
    again = FrequencyTable.from_bytes(known.to_bytes())
    assert again.name == known.name and again.images == 200 and again.spec == spec
    assert all(np.array_equal(a, b) for a, b in zip(again.counts, known.counts, strict=True))
    for data in (b"", b"\xff" * 40, known.to_bytes()[:-1], known.to_bytes()[:200]):
        with fails(InputError, "no frequency table"):
            FrequencyTable.from_bytes(data)
    endless = known.to_bytes().replace(b"[4096]", b"[" + b"9" * 4 + b"]")
    with fails(InputError, "damaged frequency table"):
        FrequencyTable.from_bytes(endless)
    wide = FrequencyTable(spec, MADE_BY, [np.zeros((16, 4095), np.int64)], 1)
    with fails(InputError, "damaged frequency table"):
        FrequencyTable.from_bytes(wide.to_bytes())
    with fails(InputError, "no tokens to count"):
        FrequencyTable.count(spec, MADE_BY, [])
    monkeypatch.setattr("vistok.tokens.frequency_table._CELLS", 4096)
    flat = table(spec)  # over all positions: a table for each would be too large
    assert flat.counts[0].shape == (1, 4096) and int(flat.counts[0].sum()) == 200 * 16
    codec, tokens = Codec(spec, MADE_BY, flat), skewed(spec, 1).prefix(5)
    assert same(codec.read(codec.write(tokens)[0]), tokens)


def test_without_the_range_coder(fails, monkeypatch):
    spec = SPECS["codes"]
    codec, tokens = Codec(spec, MADE_BY, table(spec)), skewed(spec, 1)
    (coded,) = codec.write(tokens)
    monkeypatch.setitem(sys.modules, "constriction", None)
    fresh = Codec(spec, MADE_BY, FrequencyTable.from_bytes(codec.table.to_bytes()))
    for work in (lambda: fresh.write(tokens), lambda: fresh.read(coded)):
        with fails(CoderMissing, "constriction", "pip install"):
            work()
    assert same(fresh.read(Codec(spec, MADE_BY).write(tokens)[0]), tokens)


@pytest.mark.parametrize("coded", [False, True], ids=["packed", "range"])
def test_names_and_tiles_are_kept_and_change_no_file_without_them(coded, fails, tmp_path):
    spec = SPECS["fsq"]
    codec = Codec(spec, MADE_BY, table(spec) if coded else None)
    tokens = skewed(spec, 6, made_by=MADE_BY).prefix(9)
    plain, names = codec.write(tokens), ["a.png", "tiere/käfer.jpg", "x/\udcff.png", "", "d", "e"]
    for row, data in enumerate(codec.write(tokens, names)):
        found = codec.record(data)
        assert found.name == names[row] and found.tiles is None
        assert same(found.tokens, tokens.select([row])) and same(codec.read(data), found.tokens)
        assert len(data) == len(plain[row]) + 2 + len(names[row].encode("utf8", "surrogateescape"))
        assert data[3] == plain[row][3] + 8 and codec.record(plain[row]).name is None
    tiles = Tiled(2000, 30, 2, 6)
    for name in (None, "wide.png"):
        data = codec.write_record(Record(tokens, name, tiles))
        (tmp_path / "wide.vtk").write_bytes(data)
        found = codec.read_file(tmp_path / "wide.vtk")
        assert (found.name, found.tiles) == (name, tiles) and same(found.tokens, tokens)
        assert len(data) < 6 * len(plain[0]) and len(data) <= codec.most_of(data)
        for at in range(len(data)):
            for mask in (1, 8, 128):
                damaged = bytes([*data[:at], data[at] ^ mask, *data[at + 1 :]])
                try:
                    assert same(codec.read(damaged), tokens)
                except InputError as error:
                    assert "\n" not in str(error)
            with pytest.raises(InputError):
                codec.read(data[:at])
    with fails(InputError, "6 samples of tokens for 5 tiles"):
        codec.write_record(Record(tokens, None, Tiled(9, 9, 1, 5)))
    with fails(InputError, "2 names for 6 samples"):
        codec.write(tokens, ["a", "b"])
    with fails(InputError, "more than 4096 bytes"):
        codec.write(tokens, ["a" * 5000] * 6)
    whole = tokens.keep.clone()
    whole[2] = 3
    with fails(InputError, "tiles of one image differ in length"):
        mixed = skewed(spec, 6, made_by=MADE_BY).prefix(whole)
        codec.write_record(Record(mixed, None, tiles))
    (tmp_path / "large.vtk").write_bytes(data + bytes(2**20))
    with fails(InputError, "large.vtk: more than .* bytes, the most"):
        codec.read_file(tmp_path / "large.vtk")
