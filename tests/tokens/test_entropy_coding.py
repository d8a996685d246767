"""The range coder gives every token back, and its sizes are those that entropy allows."""

import sys

import numpy as np
import pytest
import torch

from vistok.tokens import TokenSpec
from vistok.tokens.entropy_coding import (
    CoderMissing,
    Digits,
    Frequencies,
    ImageCoder,
    decode_set,
    encode_set,
    range_coder,
)

pytest.importorskip("constriction")


def skewed(count: int, length: int, vocab: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """[N, L, F]: small codes are common, and each position has its own."""
    noise = np.random.Generator(np.random.Philox(seed)).random((count, length, len(vocab)))
    shift = np.arange(length)[:, None]
    return torch.from_numpy((np.floor(noise**4 * vocab).astype(np.int64) + shift) % vocab)


@pytest.mark.parametrize(
    "vocab",
    [
        (5,),
        (4096,),
        (8, 5, 5),
        (1,),
        (300, 300),
        (2**18,),
        (100_003, 1),
        (2**30,),
        (2**48,),
        (2,) * 128,
    ],
)
def test_round_trip(vocab):
    spec = TokenSpec(blocks=((3,),), vocab=vocab, dim=4, prefix="token")
    codes = skewed(70, 3, vocab)
    codes[0] = torch.tensor(vocab) - 1  # the last code of each factor
    for positions in ([0], [0, 1, 2]):
        data = encode_set(spec, codes, positions)
        assert np.array_equal(decode_set(spec, data, 70, positions), codes[:, positions])
        coder = ImageCoder(Frequencies.of(spec, codes[:20]), positions)
        strings = coder.encode(codes)
        assert np.array_equal(coder.decode(strings), codes[:, positions])


def test_digits_are_exact():
    assert Digits((8, 5, 5)).sizes == (200,)
    assert Digits((300, 300)).sizes == (300, 300)
    assert Digits((2**18, 7)).sizes == (4096, 64, 7)
    assert Digits((100_003,)).sizes == (4096, 25)
    assert Digits((2**28,)).sizes == (4096, 65536)
    # No table is wider than 2**16, whatever the codebook.
    assert Digits((2**30,)).sizes == (4096, 4096, 64)
    assert Digits((2**48, 3)).sizes == (4096, 4096, 4096, 4096, 3)


def test_size_comes_near_the_entropy():
    spec = TokenSpec(blocks=((2,),), vocab=(16,), dim=4)
    codes = skewed(20_000, 2, (16,))
    bits = 0.0
    for position in range(2):
        share = codes[:, position, 0].bincount(minlength=16).double() / len(codes)
        bits -= float((share * share.log2()).sum()) * len(codes)
    size = 8 * len(encode_set(spec, codes, [0, 1]))
    assert bits < size < 1.01 * bits  # the frequencies had to be learned on the way
    assert size < 0.9 * spec.bits * len(codes)


def test_images_alone_use_what_both_sides_know():
    spec = TokenSpec(blocks=((64,),), vocab=(64,), dim=4)
    codes, others = skewed(50, 64, (64,)), skewed(2000, 64, (64,), seed=1)
    mean = lambda known: np.mean([len(s) for s in ImageCoder(known, range(64)).encode(codes)])
    ignorant, learned = mean(Frequencies(spec)), mean(Frequencies.of(spec, others))
    assert ignorant == pytest.approx(48, abs=4.1)  # 64 codes of 6 bits, in words of 4 bytes
    assert learned < 0.9 * ignorant


def test_without_the_package(monkeypatch, fails):
    monkeypatch.setitem(sys.modules, "constriction", None)
    with fails(CoderMissing, "constriction", "pip install"):
        range_coder()
