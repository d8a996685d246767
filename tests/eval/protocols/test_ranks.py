"""The slower protocols on one process and on two: the same numbers."""

import subprocess
import sys
from pathlib import Path

import pytest

from vistok.eval.results.rows import Results

ROOT = Path(__file__).parents[3]
PROTOCOLS = "rate_distortion,robust,order,linear_probe"


@pytest.mark.slow
def test_two_processes_give_the_same_numbers(runs, tmp_path):
    found = []
    for count in (1, 2):
        target = tmp_path / str(count) / "report.html"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
                   f"--nproc_per_node={count}", "-m", "eval", str(runs[0]), "limit=20",
                   "batch=3", "rate_distortion.train_images=200", "linear_probe.train_images=200",
                   f"protocols=[{PROTOCOLS}]", f"report={target}"]  # fmt: skip
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
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
