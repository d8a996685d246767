"""TokenSpec and Tokens: sizes, prefixes, errors, bytes, regrouping."""

import math

import pytest
import torch

from vistok.tokens import Tokens, TokenSpec


def spec(vocab=(8,), blocks=((4,),), **rest) -> TokenSpec:
    return TokenSpec(blocks=blocks, vocab=vocab, **rest)


def random_tokens(of: TokenSpec, batch: int = 3, **rest) -> Tokens:
    generator = torch.Generator().manual_seed(5)
    columns = [
        torch.randint(size, (batch, of.length), generator=generator, dtype=torch.int64)
        for size in of.vocab
    ]
    # The largest index of each factor must survive too.
    for column, size in zip(columns, of.vocab, strict=True):
        column[0, 0] = size - 1
    return Tokens.of(of, torch.stack(columns, -1), **rest)


# -- sizes ----------------------------------------------------------------------------------------
def test_bits_round_up_per_factor_and_entropy_does_not():
    # 2 x 3 + 4 = 10 positions; ceil(log2 (8, 5, 3)) = 3 + 3 + 2 = 8 bits each.
    of = spec((8, 5, 3), ((2, 3), (4,)))
    assert (of.length, of.bits, of.codebook_size) == (10, 80, 120)
    assert of.entropy_bound == pytest.approx(10 * math.log2(120))
    assert spec((1,)).bits == 0 and spec((64000,)).factor_bits == (16,)
    assert spec((2**16 + 1,)).factor_bits == (17,)


@pytest.mark.parametrize(
    ("cut", "blocks", "lengths", "sweep"),
    [
        ("none", ((6,),), None, (6,)),
        ("token", ((6,),), None, (1, 2, 4, 6)),
        ("token", ((8,),), None, (1, 2, 4, 8)),
        ("token", ((8,),), (3, 5), (3, 5, 8)),
        ("token", ((1,),), None, (1,)),
        ("block", ((1, 1), (2, 2), (3, 3)), None, (1, 2, 3)),
        ("per_block", ((5,), (5,)), None, (1, 2, 4, 5)),
    ],
)
def test_sweep(cut, blocks, lengths, sweep):
    assert spec(blocks=blocks, prefix=cut, lengths=lengths).eval_lengths == sweep


def test_positions_of_a_prefix():
    assert spec(prefix="token").positions_in(3) == 3
    assert spec(blocks=((1, 1), (2, 2), (3, 3)), prefix="block").positions_in(2) == 5
    assert spec(blocks=((4,), (2,)), prefix="per_block").positions_in(3) == 3 + 2


@pytest.mark.parametrize(
    ("top", "dtype"),
    [(256, torch.uint8), (257, torch.int16), (2**15, torch.int16), (2**15 + 1, torch.int32)],
)
def test_indices_take_the_smallest_type(top, dtype):
    assert Tokens.dtype(spec((top,))) == dtype
    assert int(random_tokens(spec((top,))).indices[0, 0, 0]) == top - 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"blocks": ()},
        {"blocks": ((0,),)},
        {"vocab": (0,)},
        {"vocab": (2, 2, 2), "branches": 2},
        {"prefix": "tail"},
    ],
)
def test_impossible_specs_are_refused(wrong):
    with pytest.raises(ValueError):
        TokenSpec(**{"blocks": ((4,),), "vocab": (8,)} | wrong)


# -- prefixes -------------------------------------------------------------------------------------
def test_prefix_of_tokens_zeroes_the_rest():
    tokens = Tokens.of(spec(prefix="token"), torch.tensor([[[1], [2], [3], [4]]] * 2))
    cut = tokens.prefix(torch.tensor([1, 3]))
    assert cut.indices[..., 0].tolist() == [[1, 0, 0, 0], [1, 2, 3, 0]]
    assert cut.keep.tolist() == [1, 3]
    assert cut.kept().tolist() == [[True] + [False] * 3, [True] * 3 + [False]]
    assert tokens.indices[..., 0].tolist() == [[1, 2, 3, 4]] * 2  # the original is untouched
    # A prefix of a prefix is the shorter of the two.
    assert cut.prefix(2).keep.tolist() == [1, 2]
    assert cut.indices.dtype == tokens.indices.dtype


def test_prefix_of_blocks_counts_blocks():
    of = spec(blocks=((1, 1), (1, 2), (2, 2)), prefix="block")
    tokens = Tokens.of(of, torch.arange(7)[None, :, None])
    assert tokens.prefix(2).indices.flatten().tolist() == [0, 1, 2, 0, 0, 0, 0]
    assert tokens.prefix(2).keep.tolist() == [2]


def test_prefix_inside_each_block():
    of = spec(blocks=((3,), (2,)), prefix="per_block")
    tokens = Tokens.of(of, torch.arange(1, 6)[None, :, None].expand(2, 5, 1))
    assert tokens.prefix(1).indices[0].flatten().tolist() == [1, 0, 0, 4, 0]
    assert tokens.prefix([1, 3]).indices[1].flatten().tolist() == [1, 2, 3, 4, 5]
    cut = tokens.prefix(torch.tensor([[1, 2], [3, 1]]))
    assert cut.indices[..., 0].tolist() == [[1, 0, 0, 4, 5], [1, 2, 3, 4, 0]]
    assert cut.keep.tolist() == [[1, 2], [3, 1]]
    assert cut.check() is cut


def test_continuous_values_are_cut_too():
    tokens = Tokens(spec((), dim=2, prefix="token"), values=torch.ones(1, 4, 2))
    assert tokens.prefix(1).values.sum() == 2


@pytest.mark.parametrize(
    ("cut", "lengths", "wrong", "words"),
    [
        ("none", None, 3, "length=3.*whole sequences.*length=4"),
        ("token", None, 0, "length=0: expected 1..4 tokens"),
        ("token", None, 5, "length=5: expected 1..4 tokens"),
        ("token", (1, 2), 3, r"length=3: expected one of \(1, 2, 4\)"),
        ("block", None, 2, "length=2: expected 1..1 blocks"),
        ("per_block", None, 5, "length=5: expected 1..4 tokens a block"),
        ("token", None, [1, 2, 3], r"length has shape \(3,\); expected one number, or \(2,\)"),
    ],
)
def test_wrong_prefixes_are_one_line(fails, cut, lengths, wrong, words):
    tokens = Tokens.of(spec(prefix=cut, lengths=lengths), torch.zeros(2, 4, 1, dtype=torch.long))
    with fails(ValueError, words):
        tokens.prefix(wrong)


# -- checks ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("value", "words"),
    [(8, "index 8 of factor 1 .* expected 0..7"), (-1, "index -1 is negative")],
)
def test_indices_outside_the_codebook(fails, value, words):
    indices = torch.zeros(2, 4, 2, dtype=torch.long)
    indices[1, 2, 1] = value
    with fails(ValueError, words):
        Tokens.of(spec((300, 8)), indices)


@pytest.mark.parametrize("shape", [(2, 4), (2, 3, 1), (2, 4, 2)])
def test_indices_of_the_wrong_shape(fails, shape):
    with fails(ValueError, r"expected \[B, 4, 1\]"):
        Tokens.of(spec(), torch.zeros(shape, dtype=torch.long))


def test_index_that_does_not_fit_its_type_is_found_before_it_wraps(fails):
    with fails(ValueError, "index 256 "):  # 256 as uint8 would be 0
        Tokens.of(spec((256,)), torch.full((1, 4, 1), 256))


@pytest.mark.parametrize(
    ("cut", "keep", "words"),
    [
        ("token", [1], "keep has shape"),
        ("token", [1, 9], "length=9"),
        ("none", [4, 3], "length=3"),
        ("per_block", [1, 1], "keep has shape"),
    ],
)
def test_wrong_keep(fails, cut, keep, words):
    indices = torch.zeros(2, 4, 1, dtype=torch.uint8)
    with fails(ValueError, words):
        Tokens(spec(prefix=cut), indices=indices, keep=torch.tensor(keep)).check()


def test_select_takes_rows_of_everything():
    tokens = random_tokens(spec(prefix="token"), 3).prefix([1, 2, 3]).select(slice(1, 3))
    assert len(tokens) == 2 and tokens.keep.tolist() == [2, 3]


# -- bytes ----------------------------------------------------------------------------------------
VOCABS = [(4096,), (1000,), (2,) * 64, (8, 5, 3), (64000,), (2**18,), (1,), (2**40,)]


@pytest.mark.parametrize("vocab", VOCABS, ids=str)
@pytest.mark.parametrize("length", [1, 7, 16])
def test_bytes_are_exact_and_packed(vocab, length):
    of = spec(vocab, ((length,),))
    tokens = random_tokens(of)
    strings = tokens.to_bytes()
    assert len(strings) == 3
    per_position = sum(math.ceil(math.log2(v)) for v in vocab)
    assert {len(s) for s in strings} == {3 + math.ceil(length * per_position / 8)}
    back = Tokens.from_bytes(strings, of)
    assert torch.equal(back.indices, tokens.indices) and back.indices.dtype == tokens.indices.dtype
    assert (back.keep, back.size, back.fps) == (None, None, None)


def test_layout_of_the_bits():
    # vocab 8 and 3: 3 + 2 bits, lowest first. (5, 2), (1, 0) -> 101 01 | 100 00 as bit strings
    # lowest first = 1,0,1, 0,1, 1,0,0, 0,0 -> first byte 1+4+16+32 = 53, second 0.
    of = spec((8, 3), ((2,),))
    tokens = Tokens.of(of, torch.tensor([[[5, 2], [1, 0]]]))
    assert tokens.to_bytes()[0][3:] == bytes([53, 0])


def test_prefixes_sizes_and_rates_survive():
    of = spec((1000,), ((300,),), prefix="token")
    tokens = random_tokens(of, size=(1, 256, 300), fps=23.976).prefix([1, 130, 300])
    strings = tokens.to_bytes()
    # version+flags 1, spec 2, keep 1 or 2, size 1 + 2 + 2, fps 8, then 10 bits a position
    assert [len(s) for s in strings] == [
        3 + 1 + 5 + 8 + 2,
        3 + 2 + 5 + 8 + 163,
        3 + 2 + 5 + 8 + 375,
    ]
    back = Tokens.from_bytes(strings, of)
    assert torch.equal(back.indices, tokens.indices) and torch.equal(back.keep, tokens.keep)
    assert back.size == (1, 256, 300) and back.fps == 23.976


@pytest.mark.parametrize("cut", ["block", "per_block"])
def test_bytes_of_cut_blocks(cut):
    of = spec((5,), ((3,), (4,), (2,)), prefix=cut)
    length = torch.tensor([[1, 4, 2], [3, 1, 1], [2, 2, 2]])
    tokens = random_tokens(of).prefix(length if cut == "per_block" else length[:, 0])
    back = Tokens.from_bytes(tokens.to_bytes(), of)
    assert torch.equal(back.indices, tokens.indices) and torch.equal(back.keep, tokens.keep)
    if cut == "per_block":  # 7 positions of 3 bits; three lengths in the header
        assert len(tokens.to_bytes()[0]) == 3 + 3 + 3


def test_no_samples_are_no_bytes():
    assert random_tokens(spec(), 1).select(slice(0, 0)).to_bytes() == []
    assert Tokens.from_bytes([], spec()).indices.shape == (0, 4, 1)


def test_bytes_of_another_spec(fails):
    data = random_tokens(spec((8,))).to_bytes()
    for other in (spec((16,)), spec(prefix="token"), spec(blocks=((5,),))):
        with fails(ValueError, "bytes 0: .*another token spec"):
            Tokens.from_bytes(data, other)


def test_cut_bytes_are_one_line_wherever_the_cut_is(fails):
    of = spec((300,), prefix="token")
    whole = random_tokens(of, size=(1, 300, 300), fps=24.0).prefix(3).to_bytes()[0]
    for stop in range(len(whole)):
        with fails(ValueError, "bytes 1: "):
            Tokens.from_bytes([whole, whole[:stop]], of)
    with fails(ValueError, "bytes 0: 5 bytes of codes; expected 4"):
        Tokens.from_bytes([whole + b"x"], of)


def test_damaged_bytes_are_one_line(fails):
    of = spec((5,), ((1,),), prefix="token")
    good = Tokens.of(of, torch.tensor([[[4]]])).to_bytes()[0]
    with fails(ValueError, "version 2; expected 1"):
        Tokens.from_bytes([bytes([good[0] + 16]) + good[1:]], of)
    for flag in (2, 4, 8):  # a size, a rate and weights that are not there
        with fails(ValueError, "cut off inside the header"):
            Tokens.from_bytes([bytes([good[0] | flag]) + good[1:]], of)
    with fails(ValueError, "index 7 of factor 0"):
        Tokens.from_bytes([good[:-1] + b"\x07"], of)
    prefix = bytes([good[0] | 1]) + good[1:3]
    with fails(ValueError, "length=2"):
        Tokens.from_bytes([prefix + b"\x02" + good[3:]], of)


def test_strings_that_do_not_belong_together(fails):
    of = spec(prefix="token")
    tokens = random_tokens(of, 1, size=(1, 8, 8))
    with fails(ValueError, "read them apart"):
        Tokens.from_bytes(tokens.to_bytes() + tokens.prefix(2).to_bytes(), of)
    with fails(ValueError, "read them apart"):
        Tokens.from_bytes(tokens.to_bytes() + random_tokens(of, 1).to_bytes(), of)


def test_continuous_tokens_have_no_bytes(fails):
    with fails(ValueError, "continuous"):
        Tokens(spec((), dim=2), values=torch.zeros(1, 4, 2)).to_bytes()


# -- regrouping -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((2,) * 64, (16,) * 16),
        ((2,) * 64, (2**16,) * 4),
        ((2**18,), (64, 4096)),
        ((8, 5, 3), (120,)),
        ((8, 5, 3), (40, 3)),
        ((6, 4, 7), (4, 6, 7)),
    ],
    ids=str,
)
def test_regrouping_is_exactly_reversible(old, new):
    tokens = random_tokens(spec(old))
    there = tokens.regroup(new)
    assert there.spec.vocab == new and there.check()
    assert there.spec.codebook_size == tokens.spec.codebook_size
    assert torch.equal(there.regroup(old).indices, tokens.indices)


def test_regrouping_is_mixed_radix_fastest_digit_first():
    bits = Tokens.of(spec((2,) * 4, ((1,),)), torch.tensor([[[1, 1, 0, 1]]]))
    assert bits.regroup((16,)).indices.item() == 1 + 2 + 8
    assert bits.regroup((4, 4)).indices.tolist() == [[[3, 2]]]
    code = Tokens.of(spec((2**18,), ((1,),)), torch.tensor([[[5 + 64 * 77]]]))
    assert code.regroup((64, 4096)).indices.tolist() == [[[5, 77]]]
    # (5, 3) of (6, 4) is 5 + 6 * 3 = 23 = 3 + 4 * 5.
    mixed = Tokens.of(spec((6, 4), ((1,),)), torch.tensor([[[5, 3]]]))
    assert mixed.regroup((4, 6)).indices.tolist() == [[[3, 5]]]


def test_regrouping_to_another_product(fails):
    with fails(ValueError, "product 8", "product 16"):
        random_tokens(spec((8,))).regroup((4, 4))
    with fails(ValueError, "no boundary below"):
        random_tokens(spec((2,) * 64)).regroup((2**64,))


def test_a_prefix_stays_a_prefix_when_regrouped():
    tokens = random_tokens(spec((2**18,), prefix="token")).prefix(2).regroup((64, 4096))
    assert tokens.keep.tolist() == [2, 2, 2] and int(tokens.indices[:, 2:].sum()) == 0
