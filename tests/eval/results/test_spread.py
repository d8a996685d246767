"""Rows of several seeds become their mean with all values; intervals have the right width."""

import pytest

from tests.support.eval_results import generated, row
from vistok.core.errors import InputError
from vistok.eval.results.compare import differences
from vistok.eval.results.rows import Row
from vistok.eval.results.spread import around, mean_interval, pooled, student


def of_seeds(*values, metric="gFID", **rest):
    fields = [{**generated(1.0), **rest, "seed": seed} for seed in range(len(values))]
    finite = [value if isinstance(value, float) else None for value in values]
    names = ["" if isinstance(value, float) else value for value in values]
    return [
        row(metric, "a", value, not_finite=name, **one)
        for value, name, one in zip(finite, names, fields, strict=True)
    ]


@pytest.mark.parametrize("freedom", [1, 2, 5, 9, 10, 30, 1000])
def test_students_quantiles(freedom):
    from scipy.stats import t

    assert student(freedom) == pytest.approx(t.ppf(0.975, freedom), rel=2e-5)


def test_the_mean_of_seeds_keeps_them_all():
    psnr = row("PSNR", "a", 20.0)
    (found, other, kept) = pooled(
        [*of_seeds(12.0, 10.0, 14.0), *of_seeds(5.0, **generated(1.5)), psnr]
    )
    assert found.value == 12.0 and found.each == (12.0, 10.0, 14.0) and found.range == (10.0, 14.0)
    assert found.seeds == (0, 1, 2) and found.seed == 0 and found.varies == "seeds"
    assert found.interval == pytest.approx((12 - 4.30265 * 2 / 3**0.5, 12 + 4.30265 * 2 / 3**0.5))
    assert "mean of 3 sampling seeds (0, 1, 2)" in found.note
    assert other.guidance == 1.5 and other.seeds == () and kept is psnr
    assert pooled([found, other, kept]) == (found, other, kept)
    again = Row.model_validate_json(found.model_dump_json(exclude={"display"}))
    assert again == found


def test_what_is_not_finite_has_no_mean():
    (found,) = pooled(of_seeds(3.0, "inf", 4.0))
    assert (found.value, found.not_finite, found.each) == (None, "inf", (3.0, None, 4.0))
    assert found.interval is None and found.range is None and found.varies == ""


def test_rows_that_differ_in_more_than_the_seed_stay_apart():
    rows = of_seeds(1.0, 2.0)
    rows[1] = rows[1].model_copy(update={"length": 4})
    assert pooled(rows) == tuple(rows)
    same = of_seeds(1.0)
    assert pooled([*same, *same]) == (*same, *same)  # one measurement twice is no spread


def test_the_number_of_seeds_is_part_of_the_protocol():
    (many,), (one,) = pooled(of_seeds(1.0, 2.0)), of_seeds(1.0)
    assert differences(many, one) == ("seeds",)


def test_intervals():
    assert mean_interval([1.0]) is None and around(1.0, float("nan")) is None
    assert around(3.0, 1.0) == pytest.approx((1.040036, 4.959964))
    assert mean_interval([2.0, 2.0]) == (2.0, 2.0)


@pytest.mark.parametrize(
    ("field", "value"), [("each", (1.0,)), ("seeds", (0, 1)), ("interval", (2.0, 1.0))]
)
def test_rows_refuse_what_does_not_fit(field, value):
    with pytest.raises((InputError, ValueError), match=field):
        row("gFID", "a", 1.0, **{field: value})
