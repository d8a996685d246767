"""Correlations of rFID and pFID with gFID: joined by pairs, never over two protocols."""

import pytest

from vistok.eval.report.correlation import coefficients, correlations
from vistok.eval.results.rows import Network, Reference, Results, Row

REAL = Reference(name="cifar10", split="train", manifest="m", count=100)


def _row(metric, run, value, **rest):
    common = {"reference": REAL, "count": 50, "features": Network(name="n", sha256="1")}
    return Row(**{"metric": metric, "run": run, "value": value, **common, **rest})


def at(guidance):
    """Sampling at one guidance, as rows carry it."""
    return {"sampling": {"generator": {"guidance": guidance}}}


def _results(gfid, rest=(), recipe="probe-tiny"):
    names = [f"t{i}" for i in range(len(gfid))]
    rows = [_row("rFID", n, float(i), length=16) for i, n in enumerate(names)]
    rows += [_row("rFID", n, 100.0 - i, length=4) for i, n in enumerate(names)]
    rows += [_row("pFID-v1", n, float(-i)) for i, n in enumerate(names)]
    rows += [
        _row("gFID", f"{n}/{recipe}", value, **at(1.0))
        for n, value in zip(names, gfid, strict=True)
    ]
    pairs = {n: [f"{n}/{recipe}"] for n in names}
    return Results(rows=(*rows, *rest), facts={"pairs": pairs})


def test_joins_each_generator_with_its_tokenizer():
    first, second = correlations(_results([1.0, 2.0, 30.0, 40.0, 50.0]))
    assert (first.x, first.y, first.n, first.recipe) == ("rFID", "gFID", 5, "probe-tiny")
    assert first.points[2] == ("t2", 2.0, 30.0)  # the full length's rFID, not the prefix's
    assert first.spearman == pytest.approx(1) and 0.9 < first.pearson < 1
    assert (second.x, second.spearman) == ("pFID-v1", pytest.approx(-1))
    assert first.spearman_p == pytest.approx(2 / 120)  # two of the 5! orders are as extreme


def test_agrees_with_a_table_by_hand():
    found = coefficients([1, 2, 3, 4, 5, 6, 7, 8], [2, 1, 4, 3, 7, 8, 6, 5])
    # 1 - 6 sum(d^2) / (n (n^2 - 1)), d = -1 1 -1 1 -2 -2 1 3
    assert found["spearman"] == pytest.approx(1 - 6 * 22 / (8 * 63))
    assert found["spearman"] == pytest.approx(found["pearson"])  # both are ranks
    assert 0 < found["spearman_p"] < 0.05


def test_no_number_without_points_or_spread():
    assert correlations(_results([1.0])) == ()
    assert correlations(_results([1.0, 2.0]))[0].spearman is None
    flat = correlations(_results([3.0, 3.0, 3.0]))[0]
    assert flat.spearman is None and flat.pearson is None and flat.n == 3
    assert correlations(Results()) == ()


def test_protocols_are_never_mixed():
    other = {"reference": REAL.model_copy(update={"manifest": "other"})}
    for change in (
        {"count": 49},
        {"features": Network(name="n", sha256="2")},
        at(2.0),
        {"crop": "center"},
        {"precision": "bf16"},
        other,
    ):
        results = _results([1.0, 2.0, 3.0, 4.0])
        rows = [
            r.model_copy(update=change) if r.run in ("t0/probe-tiny", "t1/probe-tiny") else r
            for r in results.rows
        ]
        found = correlations(results.model_copy(update={"rows": tuple(rows)}))
        assert [c.n for c in found if c.x == "rFID"] == [2, 2], change
        assert all(c.spearman is None for c in found)


def test_recipes_are_never_mixed_and_infinite_values_are_named():
    results = _results([1.0, 2.0, None, 4.0])
    rows = [_row("gFID", "t0/probe-s", 9.0, **at(1.0))]
    pairs = {**results.facts["pairs"], "t0": ["t0/probe-tiny", "t0/probe-s"]}
    results = Results(rows=(*results.rows, *rows), facts={"pairs": pairs})
    (first, _) = correlations(results)
    assert first.n == 3 and first.left_out == ("t2",) and first.recipe == "probe-tiny"
