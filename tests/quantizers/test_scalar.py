"""Scalar quantization: levels of the published rule, nearest by exact distances, quirks as options.

The rule is checked against numbers of another source: quantiles and truncated means of SciPy.
"""

import math
from itertools import pairwise

import pytest
import torch
from scipy.stats import norm, truncnorm

from vistok.config import ConfigError, validate
from vistok.core.records import Latents
from vistok.quantizers.atoms.scalar import Scalar, ScalarConfig


def scalar(**options) -> Scalar:
    return Scalar(ScalarConfig(**{"dim": 3, **options}))


def lat(z) -> Latents:
    return Latents(z, ((z.shape[1],),))


@pytest.mark.parametrize("reach", [3.0, 0.8])
@pytest.mark.parametrize("levels", [2, 3, 8, 64])
def test_levels_are_means_of_bins_of_equal_probability(levels, reach):
    bounds = [norm.ppf(k / levels) for k in range(levels + 1)]
    bounds = [max(-reach, min(reach, b)) for b in bounds]
    means = [truncnorm.mean(a, b) if a < b else a for a, b in pairwise(bounds)]
    found = scalar(levels=levels, std_range=reach, range=2.0)
    assert found.levels.tolist() == pytest.approx(means, abs=1e-6)
    expected = [(m + reach) / (2 * reach) * 4 - 2 for m in means]
    assert found.values.tolist() == pytest.approx(expected, abs=1e-6)
    assert not list(found.parameters()) and not found.state_dict()


@pytest.mark.parametrize(
    "options",
    [
        {"levels": 64},
        {"levels": 5, "range": (-1.0, 7.0), "std_range": 1.0},
        {"levels": 64, "std_range": 0.5, "empty_bins": "zero"},
        {"levels": 2048, "computed_in": "fp32", "empty_bins": "zero"},
    ],
    ids=str,
)
def test_the_index_is_the_first_argmin_over_all_levels(options):
    quantizer = scalar(**options)
    low, high = quantizer.config.range
    draws = torch.Generator().manual_seed(0)
    z = (torch.randn(2, 300, 3, generator=draws) / 4 + 0.5) * (high - low) + low
    # Ends, values of levels and the middles between them, where two levels are equally near.
    sorted_values = quantizer.values.sort().values
    special = torch.cat([sorted_values, (sorted_values[1:] + sorted_values[:-1]) / 2])
    z[0].view(-1)[: min(900, len(special))] = special[:900]
    z[1, 0] = torch.tensor([low, high, 1e9])
    result = quantizer(lat(z))
    u = quantizer.normalized(z)
    assert torch.equal(result.indices, (u[..., None] - quantizer.levels).abs().argmin(-1))
    assert torch.equal(result.values, quantizer.values[result.indices])
    zero = torch.zeros(2, 300, 1, dtype=torch.long)
    assert torch.equal(quantizer.perturb(result.queries, zero), result.indices)


def test_bins_beyond_the_range_are_its_end_or_its_middle():
    levels = {empty: scalar(levels=1024, empty_bins=empty).levels for empty in ("end", "zero")}
    assert levels["end"][[0, -1]].tolist() == [-3, 3]
    assert (levels["end"].diff() >= 0).all()
    assert levels["zero"][[0, -1]].tolist() == [0, 0]
    assert torch.equal(levels["end"][1:-1], levels["zero"][1:-1])


def test_fp32_levels_of_very_many_lose_their_order():
    exact, rough = (
        scalar(levels=2**14, computed_in=dtype, dim=1).levels for dtype in ("fp64", "fp32")
    )
    assert (exact.diff() >= 0).all() and not (rough.diff() >= 0).all()
    assert (exact - rough).abs().max() < 2e-3


def test_tokens_have_a_factor_for_every_dimension():
    quantizer = scalar(levels=6, dim=5)
    spec = quantizer.layout(((2, 3),)).spec
    assert spec.vocab == (6,) * 5 and spec.branches == 1 and spec.bits == 6 * 5 * 3
    assert spec.entropy_bound == pytest.approx(30 * math.log2(6))


def test_gradients_are_copied_to_the_latents_outside_of_the_range_too():
    z = torch.tensor([[[0.3, 9.0, -9.0]]], requires_grad=True)
    (scalar()(lat(z)).values * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert z.grad.flatten().tolist() == [1, 2, 3]


def test_neighbours_equal_a_full_sort():
    quantizer = scalar(levels=7, dim=3)
    queries = quantizer(lat(torch.randn(1, 6, 3))).queries
    digits = torch.cartesian_prod(*(torch.arange(7),) * 3).flip(-1)  # first digit fastest
    squares = (queries[0, :, 0, None] - quantizer.levels[digits]).double().square().sum(-1)
    expected = digits[squares.argsort(dim=-1, stable=True)[:, :40]]
    assert torch.equal(quantizer.neighbours(queries, 40)[0, :, 0], expected)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"levels": 1}, "levels: got 1; expected a whole number from 2 to 65,536"),
        ({"range": (5.0, -5.0)}, "range=.5.0, -5.0.; expected .low, high., low first"),
        ({"range": 0.0}, "range=.*low first"),
        ({"range": True}, "range: got"),
        ({"std_range": 0.0}, "std_range: got 0.0"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(changes, words, fails):
    with fails(ConfigError, words):
        validate(ScalarConfig, changes)
