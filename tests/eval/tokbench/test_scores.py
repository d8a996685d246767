"""Arithmetic of TokBench on numbers made by hand."""

import random

import pytest
import torch

from vistok.core.errors import InputError
from vistok.eval.tokbench.scores import (
    FACE_EDGES,
    TEXT_EDGES,
    Tally,
    edit_distance,
    word_scores,
)


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        ("", "", 0),
        ("", "abc", 3),
        ("kitten", "sitting", 3),
        ("ab", "ba", 2),  # a swap is two edits
        ("abc", "abc", 0),
        ("abc", "xabcx", 2),
    ],
)
def test_edit_distance(a, b, distance):
    assert edit_distance(a, b) == edit_distance(b, a) == distance


def test_edit_distance_agrees_with_its_definition():
    def slow(a, b):
        if not a or not b:
            return len(a) + len(b)
        same = slow(a[1:], b[1:]) + (a[0] != b[0])
        return min(same, slow(a[1:], b) + 1, slow(a, b[1:]) + 1)

    draw = random.Random(0)
    for _ in range(60):
        a, b = ("".join(draw.choices("abc", k=draw.randint(0, 6))) for _ in range(2))
        assert edit_distance(a, b) == slow(a, b), (a, b)


def test_scores_of_words_published_with_the_benchmark():
    """Readings in the output files of its repository."""
    assert word_scores("Tiredness", "Treeneas") == (0.0, pytest.approx(0.6666666666666667))
    assert word_scores("kills", "kills") == (1.0, 1.0)
    assert word_scores("short", "dut") == (0.0, pytest.approx(0.2))
    assert word_scores("could", "Guail") == (0.0, 0.0)
    assert word_scores("life", "nfo") == (0.0, 0.25)
    found = word_scores("Informatikforschung", "Arconynylsonna")
    assert found == (0.0, pytest.approx(0.1578947368421053))


def test_case_and_accents_count_and_the_longer_one_divides():
    assert word_scores("Ab", "ab") == (0.0, 0.5)
    assert word_scores("é", "e") == (0.0, 0.0)
    assert word_scores("ab", "abcd") == (0.0, 0.5)
    assert word_scores("ab", "") == (0.0, 0.0)


def test_published_edges():
    assert TEXT_EDGES[256] == (0.02, 0.03, 0.04, 1.0) and TEXT_EDGES[1024][0] == 0.005
    assert FACE_EDGES[256] == (0.1, 0.2, 0.3, 1.0) and FACE_EDGES[512] == (0.05, 0.1, 0.2, 1.0)


def test_groups_hold_their_lower_edge_and_not_their_upper_one():
    tally = Tally((0.02, 0.03, 0.04, 1.0), ("x",))
    sizes = (0.0199999, 0.02, 0.0299999, 0.03, 0.04, 0.999, 1.0)
    tally.add((size, (size,)) for size in sizes)
    assert tally.labels == ("0.02-0.03", "0.03-0.04", "0.04-1")
    assert tally.counts == (2, 1, 2, 2)  # the last: in no group


def test_the_mean_is_that_of_the_groups_and_not_of_the_words():
    tally = Tally((0.1, 0.2, 0.3, 1.0), ("right", "near"))
    for size, right, near in [
        (0.1, 1, 1.0),
        (0.15, 0, 0.5),
        (0.15, 0, 0.0),
        (0.2, 1, 1.0),
        (0.5, 0, 0.25),
        (0.05, 1, 1.0),  # in no group
    ]:
        tally.add([(size, (right, near))])
    right, near = tally.means("right"), tally.means("near")
    assert right.groups == (pytest.approx(1 / 3), 1.0, 0.0)
    assert right.mean == pytest.approx(4 / 9) and right.every == 0.5
    assert near.groups == (0.5, 1.0, 0.25) and near.mean == pytest.approx(1.75 / 3)
    assert near.every == pytest.approx(3.75 / 6)


def test_an_empty_group_leaves_no_mean():
    tally = Tally((0.1, 0.2, 0.3), ("x",))
    tally.add([(0.1, (0.5,))])
    assert tally.means("x").groups == (0.5, None) and tally.means("x").mean is None
    with pytest.raises(InputError, match="no words or faces"):
        Tally((0.1, 0.2), ("x",)).means("x")


@pytest.mark.parametrize("edges", [(0.1,), (0.2, 0.1), (0.1, 0.1)])
def test_edges_that_are_none(edges):
    with pytest.raises(InputError, match="expected two or more ascending numbers"):
        Tally(edges, ("x",))


def test_sums_are_kept_by_passes():
    tally = Tally((0.1, 0.2, 0.3), ("x",))
    tally.add([(0.1, (0.5,))])
    other = Tally((0.1, 0.2, 0.3), ("x",))
    other.states.copy_(tally.states)
    assert torch.equal(other.sums, tally.sums) and other.means("x") == tally.means("x")
