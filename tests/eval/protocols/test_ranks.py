"""The slower protocols on one process and on two: the same numbers."""

import pytest

from tests.support.processes import run
from vistok.eval.results.rows import Results

PROTOCOLS = "rate_distortion,robust,order,linear_probe,adaptive_length"


@pytest.mark.slow
def test_two_processes_give_the_same_numbers(runs, tmp_path):
    found = []
    for count in (1, 2):
        target = tmp_path / str(count) / "report.html"
        settings = "limit=20 batch=3 rate_distortion.train_images=200 linear_probe.train_images=200"
        chosen = [f"protocols=[{PROTOCOLS}]", f"report={target}"]
        done = run("eval", runs[0], *settings.split(), *chosen, processes=count)
        assert done.returncode == 0, done.stderr
        found.append(Results.load(target.with_name("results.json")))
    one, two = found
    assert two.facts["world_size"] == 2 and len(one.rows) == len(two.rows)
    assert {row.protocol for row in one.rows} == set(PROTOCOLS.split(","))
    for a, b in zip(one.rows, two.rows, strict=True):
        same = ("metric", "run", "length", "point", "measured", "count", "setting", "note")
        for name in same:
            assert getattr(a, name) == getattr(b, name), (a.metric, name)
        assert a.value == pytest.approx(b.value, rel=1e-6, abs=1e-9), a.metric
    first, second = (r.facts["order"][one.rows[0].run] for r in found)
    assert first["entropy"] == second["entropy"]
    assert first["change"] == pytest.approx(second["change"], rel=1e-6)
    assert one.facts["skipped"] == two.facts["skipped"]
