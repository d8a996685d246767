"""FDr and FDr6 rows: made from gFIDs and their floors, of one set of samples only."""

from __future__ import annotations

import pytest

from tests.support.eval_results import generated, row
from vistok.eval.results.fdr import fdr_rows, with_fdr
from vistok.eval.results.rows import Floor, Network, Reference
from vistok.metrics.fdr import FDR6, IMAGENET_FLOORS

VALUES = dict(zip(FDR6, (2.1, 113.74, 28.38, 0.1, 0.3, 5.6), strict=True))


def gfid(name: str, value: float | None = None, run: str = "a", **rest):
    network = Network(name=name, sha256=name * 4, preprocess=f"as {name}")
    given = {"features": network, "protocol": "gfid", **generated(1.0), **rest}
    return row("gFID", run, VALUES.get(name) if value is None else value, **given)


def made(rows, floors=IMAGENET_FLOORS, count: int = 64):
    """Rows of FDr, for floors by network that were measured with `count` images."""
    held_out = Reference(name="photos", split="test", manifest="m", count=count)
    floor = lambda name: Floor(value=floors[name], count=count, reference=held_out)
    with_floors = [
        one.model_copy(update={"floor": floor(one.features.name)})
        if one.features.name in floors
        else one
        for one in rows
    ]
    found = fdr_rows(with_floors)
    assert with_fdr(with_floors) == (*with_floors, *found)
    assert all(one.floor is None for one in found)
    return found


def test_six_ratios_and_their_mean():
    found = made([gfid(name) for name in FDR6])
    ratios = {one.features.name: one.value for one in found if one.metric == "FDr"}
    assert ratios == pytest.approx(dict(zip(FDR6, (1.25, 2, 2, 2.5, 0.5, 1), strict=True)))
    (six,) = [one for one in found if one.metric == "FDr6"]
    assert six.value == pytest.approx(9.25 / 6) and six.note == "" and six.bias is None
    assert six.display == "FDr6[fdr6, photos]" and "mae-fdr: as mae-fdr" in six.features.preprocess
    assert [one.metric for one in found] == ["FDr"] * 6 + ["FDr6"]
    other = made([gfid(name) for name in FDR6[:-1]] + [
        gfid("clip-fdr", features=Network(name="clip-fdr", sha256="b"))
    ])[-1]  # fmt: skip
    assert other.value == six.value and other.features.sha256 != six.features.sha256


def test_a_missing_network_is_told_and_makes_no_mean():
    rows = [gfid(name) for name in FDR6 if name != "mae-fdr"]
    found = made(rows)
    assert {one.metric for one in found} == {"FDr"} and len(found) == 5
    assert all(one.note == "no FDr6 without mae-fdr" for one in found)
    assert made([gfid("dinov2", 3.0), gfid("vistok-cnn", 3.0)]) == []


def test_only_floors_of_as_many_images_divide():
    rows = [gfid(name) for name in FDR6]
    assert made(rows, count=50) == [] and made(rows, {}) == []
    assert made(rows, dict.fromkeys(FDR6, 0.0)) == []


def test_other_samples_are_never_mixed():
    """Guidance, run, length and reference make other samples; each has its own six."""
    plain = [gfid(name) for name in FDR6]
    guided = [gfid(name, 2 * VALUES[name], **generated(2.0)) for name in FDR6]
    other = [gfid(name, 3 * VALUES[name], run="b") for name in FDR6]
    found = [one for one in made([*plain, *guided, *other]) if one.metric == "FDr6"]
    values = {(one.run, one.guidance): one.value for one in found}
    mean = 9.25 / 6
    wanted = {("a", 1.0): mean, ("a", 2.0): 2 * mean, ("b", 1.0): 3 * mean}
    assert values == pytest.approx(wanted)
    halves = [gfid(name) for name in FDR6[:3]] + [gfid(name, length=4) for name in FDR6[3:]]
    assert {one.metric for one in made(halves)} == {"FDr"}


def test_intervals_are_divided_too_and_weak_parts_are_named():
    given = {"interval": (1.0, 3.0), "varies": "seeds", "seeds": (0, 1), "each": (1.0, 3.0)}
    few = [gfid(name, **given, few="few images" if name == "mae-fdr" else "") for name in FDR6]
    found = {one.features.name: one for one in made(few)}
    assert found["mae-fdr"].interval == pytest.approx((25.0, 75.0))
    assert found["mae-fdr"].each == pytest.approx((25.0, 75.0))
    six = found["fdr6"]
    mean = sum(1 / IMAGENET_FLOORS[name] for name in FDR6) / 6
    assert six.few == "mae-fdr: few images" and six.seeds == (0, 1) and six.varies == "seeds"
    assert six.each == pytest.approx((mean, 3 * mean))
    assert six.interval[0] < six.each[0] and six.interval[1] > six.each[1]  # over the two seeds
    given = {"interval": (1.0, 3.0), "varies": "images"}
    six = made([gfid(name, **given) for name in FDR6])[-1]
    assert six.interval is None and six.varies == "" and six.each == ()


def test_cells_and_values_that_are_not_finite_have_no_ratio():
    infinite = gfid("mae-fdr").model_copy(update={"value": None, "not_finite": "inf"})
    assert made([infinite]) == []
    at = {"point": {"alpha": 0.1, "delta": 10}, "measured": {"delta": 10.0}}
    point = gfid("mae-fdr", **at)
    assert made([point]) == []
