"""FDr and FDr6: the arithmetic by hand, and that no network is left out."""

from __future__ import annotations

import pytest

from vistok.frozen import FEATURES
from vistok.metrics.fdr import FDR6, IMAGENET_FLOORS, fdr, ratio

DISTANCES = dict(zip(FDR6, (2.1, 113.74, 28.38, 0.1, 0.3, 5.6), strict=True))


def test_by_hand():
    """2.1 / 1.68 = 1.25, then 2, 2, 2.5, 0.5, 1: their sum is 9.25."""
    ratios = [ratio(DISTANCES[name], IMAGENET_FLOORS[name]) for name in FDR6]
    assert ratios == pytest.approx([1.25, 2.0, 2.0, 2.5, 0.5, 1.0])
    assert fdr(DISTANCES, IMAGENET_FLOORS) == pytest.approx(9.25 / 6)
    assert fdr(IMAGENET_FLOORS, IMAGENET_FLOORS) == 1.0
    assert fdr(DISTANCES, IMAGENET_FLOORS, ("mae-fdr",)) == pytest.approx(2.5)
    assert fdr(DISTANCES | {"dinov2": 1e9}, IMAGENET_FLOORS) == pytest.approx(9.25 / 6)


def test_it_is_the_mean_of_ratios_and_no_ratio_of_means():
    """A mean of distances would be ConvNeXt's, whose numbers are the largest."""
    worse = DISTANCES | {"mae-fdr": 0.2}
    assert fdr(worse, IMAGENET_FLOORS) - fdr(DISTANCES, IMAGENET_FLOORS) == pytest.approx(2.5 / 6)


def test_the_six_are_networks_of_this_package():
    assert len(FDR6) == 6 == len(set(FDR6)) and set(FDR6) <= set(FEATURES)
    assert set(IMAGENET_FLOORS) == set(FDR6)


def test_a_missing_network_is_an_error(fails):
    five = {name: value for name, value in DISTANCES.items() if name != "mae-fdr"}
    with fails(ValueError, "FDr over 6 networks: no distance of mae-fdr"):
        fdr(five, IMAGENET_FLOORS)
    floors = {name: value for name, value in IMAGENET_FLOORS.items() if name != "clip-fdr"}
    with fails(ValueError, "no distance of the real images of clip-fdr"):
        fdr(DISTANCES, floors)
    with fails(ValueError, "at least one network"):
        fdr(DISTANCES, IMAGENET_FLOORS, ())


@pytest.mark.parametrize("pair", [(1, 0), (1, -2), (-1, 1), (float("inf"), 1), (1, float("nan"))])
def test_ratios_of_nothing(pair, fails):
    with fails(ValueError, "FDr of the distance .* expected a finite"):
        ratio(*pair)
