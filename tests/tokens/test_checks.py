"""What tokens and their bytes refuse, and the record of the weights that made them."""

import math
import time
from dataclasses import replace

import pytest
import torch

from tests.tokens.test_tokens import random_tokens, spec
from vistok.tokens import Tokens, TokenSpec
from vistok.tokens.packing import most_bytes


def test_a_number_without_an_end_is_refused_at_once(fails):
    of = spec(prefix="token")
    good = random_tokens(of, 1).to_bytes()[0]
    endless = bytes([good[0] | 1]) + good[1:3] + b"\xff" * 10**6
    start = time.perf_counter()
    with fails(ValueError, "a number of more than 5 bytes in the header; it is damaged"):
        Tokens.from_bytes([endless], of)
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize("fps", [math.nan, math.inf, 0.0, -1.0])
def test_a_rate_that_cannot_be_is_damage(fps, fails):
    with fails(ValueError, "frames per second in the header; it is damaged"):
        Tokens.from_bytes(random_tokens(spec(), 1, fps=fps).to_bytes(), spec())


def test_the_weights_that_made_them_survive(fails):
    of = spec((1000,), prefix="token")
    tokens = random_tokens(of, size=(1, 8, 8), made_by="0123456789abcdef").prefix(2)
    plain = replace(tokens, made_by=None).to_bytes()
    strings = tokens.to_bytes()
    assert [len(a) - len(b) for a, b in zip(strings, plain, strict=True)] == [4] * len(strings)
    back = Tokens.from_bytes(strings, of)
    assert back.made_by == "01234567" and torch.equal(back.indices, tokens.indices)
    with fails(ValueError, "read them apart"):
        Tokens.from_bytes([strings[0], plain[0]], of)


def test_no_tokens_take_more_bytes_than_stated():
    for prefix in ("token", "per_block"):
        of = spec((1000,), ((300,), (40,)), prefix=prefix)
        tokens = random_tokens(of, size=(10**4,) * 3, fps=1.5, made_by="0" * 64)
        cut = tokens.prefix(of.max_prefix)
        assert max(map(len, cut.to_bytes())) <= most_bytes(of) <= len(cut.to_bytes()[0]) + 20


def test_only_integers_are_codes_and_lengths(fails):
    of = spec((8,), prefix="token")
    for kind in (torch.float32, torch.bool, torch.complex64):
        for make in (Tokens, Tokens.of):
            with fails(ValueError, "indices of type .*expected integers"):
                make(of, torch.ones(1, 4, 1).to(kind))
    tokens = random_tokens(of)
    with fails(ValueError, "length of type float32; expected integers"):
        tokens.prefix(2.5)
    with fails(ValueError, "keep of type float32; expected integers"):
        replace(tokens, keep=torch.full((len(tokens),), 2.0))
    with fails(ValueError, "no indices"):
        Tokens(of).check()


def test_continuous_tokens_are_checked(fails):
    of = TokenSpec(blocks=((4,),), vocab=(), dim=3)
    assert Tokens(of, values=torch.zeros(2, 4, 3)).check()
    for values, words in (
        (None, "values have shape None"),
        (torch.zeros(2, 4, 5), r"expected \[B, 4, 3\]"),
        (torch.zeros(2, 4, 3).long(), "expected floats"),
        (torch.full((2, 4, 3), math.nan), "values are not finite"),
    ):
        with fails(ValueError, words):
            Tokens(of, values=values).check()
