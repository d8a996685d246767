"""CKNNA against whole matrices, and on sets whose alignment is known."""

import math

import pytest
import torch

from vistok.metrics.alignment import cknna


def normal(count, width, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def whole(a, b, k):
    """The definition with n x n matrices, entry by entry."""
    n = len(a)
    unit = lambda x: torch.nn.functional.normalize(x.double(), dim=1)
    kernels = [unit(x) @ unit(x).T for x in (a, b)]

    def mask(kernel):
        kept = torch.zeros(n, n, dtype=torch.float64)
        for i in range(n):
            order = sorted((j for j in range(n) if j != i), key=lambda j: (-kernel[i, j], j))
            kept[i, order[:k]] = 1
        return kept

    def hsic(x, y):
        found = sum(float(x[i, j] * y[j, i]) for i in range(n) for j in range(n) if i != j)
        found += float(x.sum() * y.sum()) / ((n - 1) * (n - 2))
        found -= 2 / (n - 2) * sum(float(x[:, i].sum() * y[i].sum()) for i in range(n))
        return found / (n * (n - 3))

    def similarity(x, y):
        both = mask(x) * mask(y)
        return hsic(both * x, both * y)

    x, y = kernels
    return similarity(x, y) / (math.sqrt(similarity(x, x) * similarity(y, y)) + 1e-6)


@pytest.mark.parametrize("k", [2, 5, 12])
def test_like_whole_matrices(k):
    a = normal(40, 6)
    b = torch.cat([a[:, :3], normal(40, 4, 1)], 1)
    assert cknna(a, b, k) == pytest.approx(whole(a, b, k), rel=1e-9)
    assert 0.02 < cknna(a, b, k) < 0.9


def test_a_hand_made_case():
    """Two pairs of mutual neighbors at angles 0 and 90 degrees, k = 2 of 4 samples.

    A: e1, e1, e2, e2. Cosines 1 within a pair, 0 across; each row keeps its partner and the lower
    index of the others, whose entry is 0. So X has four ones: tr X^2 = 4, 1'X1 = 4, 1'XX1 = 4.
    HSIC = (4 + 16 / 6 - 8 / 2) / 4 = 2 / 3. B pairs them otherwise: e1, e2, e1, e2.
    """
    a = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    b = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]])
    assert cknna(a, a, 2) == pytest.approx(2 / 3 / (2 / 3 + 1e-6), rel=1e-12)
    assert cknna(a, 7 * a, 2) == cknna(a, a, 2)  # lengths do not matter
    # Rows keep {1,2} {0,2} {3,0} {2,0} of A and {2,1} {3,0} {0,1} {1,0} of B: entries in both are
    # (0,1) (0,2) (1,0) (2,0) (3,0). K is 1 at (0,1) (1,0) of them, L at (0,2) (2,0):
    # tr = 0, totals 2 and 2, 1'XY1 = column sums (1,1,0,0) times row sums (1,0,1,0) = 1.
    expected = (0 + 4 / 6 - 2 / 2) / 4
    assert cknna(a, b, 2) == pytest.approx(expected / (2 / 3 + 1e-6), rel=1e-12)


def test_what_it_says():
    a = normal(300, 8)
    turned = a @ torch.linalg.qr(normal(8, 8, 2)).Q
    assert cknna(a, turned) == pytest.approx(1, abs=1e-3)
    assert abs(cknna(a, normal(300, 8, 1))) < 0.05
    noise = [cknna(a, a + s * normal(300, 8, 3)) for s in (0.1, 0.3, 1.0)]
    assert noise == sorted(noise, reverse=True) and noise[0] > 0.6
    assert cknna(a, turned[torch.randperm(300, generator=torch.Generator().manual_seed(0))]) < 0.05
    seen = []
    cknna(a, turned, advance=seen.append)
    assert sum(seen) == 600


def test_what_is_refused(fails):
    for a, b, k in ((5, 6, 2), (5, 5, 1), (11, 11, 10), (3, 3, 2)):
        with fails(ValueError, "CKNNA", "expected"):
            cknna(normal(a, 2), normal(b, 2), k)
