"""Distances of code usage on numbers made by hand, and what they say of sets alike."""

import math

import pytest
import torch

from vistok.metrics.code_distance import code_columns, code_distance
from vistok.tokens import TokenSpec


def codes(rows):
    return torch.tensor(rows)[..., None]


def test_by_hand():
    a, b = codes([[0, 0], [1, 1]]), codes([[0, 2], [0, 2]])
    found = code_distance(a, b)  # p = 1/2, 1/2, 0; q = 1/2, 0, 1/2
    assert found.total_variation == 0.5
    middle = 0.5 * 1 + 2 * 0.25 * 2  # H(1/2, 1/4, 1/4)
    assert found.jensen_shannon == pytest.approx(middle - 1)
    at = code_distance(a, b, by_position=True)  # first: {0, 1} to {0, 0}; second: {0, 1} to {2, 2}
    assert at.total_variation == pytest.approx((0.5 + 1) / 2)
    first = (0.75 * math.log2(4 / 3) + 0.25 * 2) - 0.5
    assert at.jensen_shannon == pytest.approx((first + 1) / 2)


def test_what_it_says():
    same = codes([[3, 1], [2, 2], [3, 9]])
    assert code_distance(same, same.flip(0)) == (0, 0)
    apart = code_distance(same, same + 10)
    assert apart == (pytest.approx(1), pytest.approx(1))
    shuffled = same.flip(1)
    assert code_distance(same, shuffled) == (0, 0)
    assert code_distance(same, shuffled, by_position=True).total_variation > 0
    twice = torch.cat([same, same])
    assert code_distance(same, twice) == (pytest.approx(0), pytest.approx(0))


def test_each_codebook_counts_alike_and_absent_positions_do_not():
    a = torch.tensor([[[0, 5], [1, 5]]])
    b = torch.tensor([[[0, 5], [0, 5]]])
    assert code_distance(a, b).total_variation == 0.25  # 1/2 and 0
    gone = torch.tensor([[[0, 5], [-1, -1]]])
    assert code_distance(gone, b) == (0, 0)


def test_columns():
    spec = TokenSpec(blocks=((2,),), vocab=(3, 4, 5, 2), dim=1, branches=2)
    columns = code_columns(spec)
    assert (columns.sizes, columns.what) == ((12, 10), "mean over 2 codebooks")
    indices = torch.tensor([[[2, 3, 4, 1], [1, 0, 0, 1]]])
    assert columns.of(indices, spec.vocab).tolist() == [[[2 + 3 * 3, 4 + 5], [1, 5]]]
    many = spec.model_copy(update={"vocab": (2**11,) * 4, "branches": 1})
    alone = code_columns(many)
    assert alone.sizes == (2**11,) * 4 and alone.what == "mean over 4 factors"
    assert torch.equal(alone.of(indices, many.vocab), indices)
    large = spec.model_copy(update={"vocab": (2**30,), "branches": 1})
    assert code_columns(large).groups == ((0,),)


def test_what_is_refused(fails):
    with fails(ValueError, "continuous"):
        code_columns(TokenSpec(blocks=((2,),), vocab=(), dim=3))
    with fails(ValueError, "shapes", r"\(1, 2, 1\)", r"\(1, 3, 1\)"):
        code_distance(codes([[1, 2]]), codes([[1, 2, 3]]))
    with fails(ValueError, "without tokens"):
        code_distance(codes([[-1, -1]]), codes([[1, 2]]))
