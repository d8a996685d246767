"""Tokens as an object: samples, comparison, ids and their inverse, files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vistok.core.errors import InputError, UserError
from vistok.tokens import Tokens, TokenSpec

PLAIN = TokenSpec(blocks=((4,),), vocab=(12,), prefix="token")
DIGITS = TokenSpec(blocks=((2, 2),), vocab=(4, 3), branches=2)
SCALES = TokenSpec(blocks=((1, 1), (2, 2)), vocab=(5,), prefix="block")
INSIDE = TokenSpec(blocks=((2,), (2,)), vocab=(5,), prefix="per_block")
WIDE = TokenSpec(blocks=((2,),), vocab=(2,) * 64)
SPECS = [PLAIN, DIGITS, SCALES, INSIDE]


def tokens(spec: TokenSpec, count: int = 3, seed: int = 0) -> Tokens:
    numbers = torch.Generator().manual_seed(seed)
    digits = [torch.randint(size, (count, spec.length), generator=numbers) for size in spec.vocab]
    return Tokens.of(spec, torch.stack(digits, -1), size=(1, 8, 8), fps=2.5, made_by="abcd")


def cuts(spec: TokenSpec) -> list[Tokens]:
    """Whole sequences, prefixes of one length, and of several."""
    whole = tokens(spec)
    if spec.prefix == "none":
        return [whole]
    mixed = {"per_block": torch.tensor([[1, 2], [2, 1], [1, 1]])}
    lengths = mixed.get(spec.prefix, torch.tensor([1, 2, spec.max_prefix]))
    return [whole, whole.prefix(1), whole.prefix(lengths)]


@pytest.mark.parametrize("spec", SPECS)
def test_samples(spec):
    for one in cuts(spec):
        rows = list(one)
        assert len(rows) == 3 and all(len(row) == 1 for row in rows)
        assert Tokens.cat(rows) == one and one[:] == one and one[-1] == rows[2]
        assert one[1:] == Tokens.cat(rows[1:]) == one[[1, 2]] == one[torch.tensor([1, 2])]
        assert one[torch.tensor([True, False, True])] == one[::2] == one.select(slice(0, 3, 2))
        assert one[0].made_by == "abcd" and one[0].fps == 2.5
    for number in (1, np.int64(1), torch.tensor(1), -2):
        assert tokens(spec)[number] == tokens(spec)[1:2]
    for wrong in (3, np.int64(3), torch.tensor(-4)):
        with pytest.raises(IndexError, match="of 3"):
            tokens(spec)[wrong]
    for wrong in ([0.5], 1.0, [[0, 1]]):
        with pytest.raises(IndexError, match="rows of type"):
            tokens(spec)[wrong]


@pytest.mark.parametrize("spec", SPECS)
def test_no_samples_have_no_ids(spec):
    for one in cuts(spec):
        none = one[[]]
        assert len(none) == len(none.ids()) == len(none.flat_ids()) == 0
        assert Tokens.cat([none, one]) == one


@pytest.mark.parametrize("spec", SPECS)
def test_ids_and_back(spec):
    for one in cuts(spec):
        ids, flat = one.ids(), one.flat_ids()
        assert ids.dtype == flat.dtype == torch.int64
        assert Tokens.from_ids(spec, ids) == Tokens.from_flat_ids(spec, flat) == one
        assert int(ids.max()) < spec.codebook_size and int(flat.max()) < sum(spec.vocab)
        row = one[0]
        assert Tokens.from_ids(spec, row.ids()[0].to(torch.int16)) == row


def test_the_rules_of_ids():
    one = Tokens.of(DIGITS, torch.tensor([[[1, 2], [3, 0], [0, 1], [0, 0]]]))
    assert one.ids().tolist() == [[1 + 4 * 2, 3, 4, 0]]  # the first factor is the fastest digit
    assert one.flat_ids().tolist() == [[1, 4 + 2, 3, 4, 0, 4 + 1, 0, 4]]
    short = tokens(PLAIN).prefix(torch.tensor([1, 2, 2]))
    assert short.ids().shape == (3, 2) and short.ids()[0, 1] == -1
    assert tokens(WIDE).flat_ids().shape == (3, 128)
    assert int(tokens(WIDE).regroup((2**16,) * 4).flat_ids().max()) < 4 * 2**16


@pytest.mark.parametrize(
    ("spec", "ids", "words"),
    [
        (PLAIN, torch.zeros(1, 5, dtype=int), r"shape \(1, 5\); expected \[B, 4\], fewer of a pre"),
        (PLAIN, torch.zeros(1, 4), "ids of type float32; expected integers"),
        (PLAIN, torch.tensor([0, 1, 2, 12]), r"id 12: expected 0\.\.11"),
        (PLAIN, torch.tensor([0, 1, -2, 1]), r"id -2: expected 0\.\.11"),
        (PLAIN, torch.tensor([0, -1, 2, 1]), "ids of 3 positions are no prefix"),
        (DIGITS, torch.tensor([0, 1]), "ids of 2 positions are no prefix .* the first 4"),
        (SCALES, torch.tensor([0, 1, 2]), "ids of 3 positions are no prefix .* the first 1, 5"),
        (TokenSpec(blocks=((4,),), vocab=(), dim=2), torch.zeros(4), "these tokens are continuous"),
    ],
)
def test_wrong_ids_are_one_line(fails, spec, ids, words):
    with fails(InputError, words):
        Tokens.from_ids(spec, ids)


def test_more_mistakes_are_one_line(fails):
    with fails(InputError, r"a position has 1\.84e\+19 codes, .*; use flat_ids"):
        tokens(WIDE).ids()
    with fails(InputError, r"flat id 1 of factor 1: expected 4\.\.6"):
        Tokens.from_flat_ids(DIGITS, torch.tensor([0, 1] * 4))
    with fails(InputError, "cat of no tokens"):
        Tokens.cat([])
    with fails(InputError, "cat of tokens whose spec differ"):
        Tokens.cat([tokens(PLAIN), tokens(SCALES)])
    with fails(InputError, "cat of tokens whose made_by differ: abcd and ef"):
        Tokens.cat([tokens(PLAIN), replace(tokens(PLAIN), made_by="ef")])
    with fails(InputError, "continuous tokens have no ids"):
        Tokens(TokenSpec(blocks=((1,),), vocab=(), dim=2), values=torch.zeros(1, 1, 2)).ids()


def test_equality_is_a_bool():
    one = tokens(PLAIN)
    assert one == tokens(PLAIN) and one != tokens(PLAIN, seed=1) and one != "tokens"
    assert (one == one.prefix(2)) is False and one == one.prefix(4) and one != one[:2]
    assert one == replace(one, size=None, fps=None, made_by=None)
    garbage = replace(one.prefix(2), indices=one.indices)  # codes behind the end are nobody's
    assert garbage == one.prefix(2)
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)


def test_cat_of_whole_ones_and_prefixes():
    one = tokens(PLAIN)
    both = Tokens.cat([one, one.prefix(2)])
    assert (
        both.keep.tolist() == [4, 4, 4, 2, 2, 2] and both[:3] == one and both[3:] == one.prefix(2)
    )


@pytest.mark.parametrize("spec", SPECS)
def test_files(spec, tmp_path):
    for one in cuts(spec):
        one.save(tmp_path / "codes.safetensors")
        back = Tokens.load(tmp_path / "codes.safetensors")
        assert back == one and back.indices.dtype == one.indices.dtype
        assert (back.size, back.fps, back.made_by) == ((1, 8, 8), 2.5, "abcd")
    assert [path.name for path in tmp_path.iterdir()] == ["codes.safetensors"]


def test_files_of_continuous_tokens_and_wrong_files(tmp_path, fails):
    spec, path = TokenSpec(blocks=((2,),), vocab=(), dim=3), tmp_path / "a.safetensors"
    one = Tokens(spec, values=torch.rand(2, 2, 3))
    one.save(path)
    assert Tokens.load(path) == one and one != Tokens(spec, values=one.values + 1)
    for name in ("other", "text", "damaged"):
        path = tmp_path / f"{name}.safetensors"
        if name == "other":
            save_file({"indices": torch.zeros(1)}, path)
        elif name == "text":
            path.write_text("no tensors")
        else:
            header = {"format": "vistok tokens", "spec": PLAIN.model_dump_json(), "facts": "{}"}
            save_file({"indices": torch.full((1, 4, 1), 99)}, path, header)
        with fails(UserError, name, "safetensors: "):
            Tokens.load(path)


def test_it_says_what_it_is():
    assert repr(tokens(PLAIN)) == (
        "Tokens(3 samples x 4 tokens of 4 bits, uint8 on cpu, 2.5 fps, made by abcd)"
    )
    assert "kept 2, uint8" in repr(tokens(PLAIN).prefix(2))
    assert "kept 1 to 2 blocks" in repr(tokens(SCALES).prefix(torch.tensor([1, 2, 1])))
    values = Tokens(TokenSpec(blocks=((2,),), vocab=(), dim=3), values=torch.rand(1, 2, 3))
    assert repr(values) == "Tokens(1 sample x 2 vectors of 3, float32 on cpu)"


def test_facts_that_some_lack_are_of_none():
    one, bare = tokens(PLAIN), replace(tokens(PLAIN), made_by=None, size=None)
    for many in ([one, bare], [bare, one]):
        both = Tokens.cat(many)
        assert both.made_by is None and both.size is None and both.fps == 2.5


def test_files_that_are_not_there_are_one_line(tmp_path):
    for place in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(InputError, match=r"no such file; expected one that Tokens\.save"):
            Tokens.load(place)
    with pytest.raises(InputError, match=r"cannot be written .No such file"):
        tokens(PLAIN).save(tmp_path / "none" / "x.safetensors")
