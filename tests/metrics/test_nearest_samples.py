"""Nearest samples: against all pairs in exact arithmetic, ties, exclusion, blocks, processes."""

import pytest
import torch

from vistok.metrics import nearest_samples as module
from vistok.metrics.nearest_samples import Vectors, grid_scale, nearest_samples


def normal(count, width, seed):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def brute(queries, samples, count, exclude=None):
    """Sorted by (distance, index), one pair at a time."""
    found = []
    for place, query in enumerate(queries.double()):
        squares = [float(((query - one.double()) ** 2).sum()) for one in samples]
        order = sorted(range(len(samples)), key=lambda i: (squares[i], i))
        own = -1 if exclude is None else int(exclude[place])
        found.append([i for i in order if i != own][:count])
    return found


@pytest.mark.parametrize("width", [1, 3, 70])
def test_like_all_pairs(width):
    queries, samples = normal(17, width, 0), normal(60, width, 1) * 2
    near = nearest_samples(Vectors.of(queries), Vectors.of(samples), 4)
    assert near.index.tolist() == brute(queries, samples, 4)
    expected = ((queries[:, None] - samples[near.index]) ** 2).sum(-1)
    assert near.squares.float() == pytest.approx(expected, rel=1e-5, abs=1e-8)


def test_ties_go_to_the_lower_index_and_equal_samples_have_distance_zero():
    samples = torch.tensor([[3.0], [1.0], [-1.0], [1.0], [0.0], [0.0]])
    queries = torch.tensor([[0.0], [1.0], [-2.0]])
    near = nearest_samples(Vectors.of(queries), Vectors.of(samples), 3)
    assert near.index.tolist() == [[4, 5, 1], [1, 3, 4], [2, 4, 5]]
    assert near.squares[0].tolist() == pytest.approx([0, 0, 1]) and near.squares[0, 0] == 0


def test_a_sample_is_not_its_own_neighbor():
    samples = torch.tensor([[0.0], [0.0], [5.0], [6.0]])
    exclude = torch.arange(4)
    near = nearest_samples(Vectors.of(samples), Vectors.of(samples), 2, exclude)
    assert near.index.tolist() == brute(samples, samples, 2, exclude)
    kept = nearest_samples(Vectors.of(samples), Vectors.of(samples), 1, torch.tensor([-1, 0, 0, 0]))
    assert kept.index[:, 0].tolist() == [0, 1, 2, 3]


def test_blocks_and_processes_change_no_bit(monkeypatch):
    """Codes of a coarse grid, so that there are ties everywhere."""
    levels = [(normal(n, 5, n) * 2).round() for n in (70, 300)]
    queries, samples = (one / 4 for one in levels)
    whole = nearest_samples(Vectors.of(queries), Vectors.of(samples), 7)
    monkeypatch.setattr(module, "_QUERIES", 8)
    monkeypatch.setattr(module, "_SAMPLES", 11)
    seen = []
    parts = [
        nearest_samples(
            Vectors.of(queries), Vectors.of(samples), 7, share=(r, 2), advance=seen.append
        )
        for r in range(2)
    ]
    assert torch.equal(parts[0].index + parts[1].index, whole.index)
    assert torch.equal(parts[0].squares + parts[1].squares, whole.squares)
    assert sum(seen) == 70 and len(seen) == 9
    assert whole.index.tolist() == brute(*levels, 7)


def test_sums_stay_exact():
    """The largest vectors in the farthest corners of a wide space: 4 D M^2 is 2^53 at most."""
    width = 4096
    for largest in (1.0, 0.3, 77.0):
        whole = largest * grid_scale(largest, width)
        assert 2**53 / 4.1 < 4 * width * whole**2 <= 2**53
    ends = torch.tensor([[1.0], [-1.0]]).expand(2, width)
    near = nearest_samples(Vectors.of(ends), Vectors.of(ends), 2)
    assert near.index.tolist() == [[0, 1], [1, 0]]
    assert near.squares[:, 1].tolist() == pytest.approx([4 * width] * 2)


def test_what_is_refused(fails):
    some = Vectors.of(normal(3, 2, 0))
    for other, count, words in (
        (Vectors.of(normal(3, 4, 0)), 1, ("width 2", "width 4")),
        (some, 4, ("4 neighbors", "among 3")),
        (Vectors.of(torch.tensor([[1.0, float("nan")]])), 1, ("nan", "finite")),
    ):
        with fails(ValueError, *words):
            nearest_samples(some, other, count)
