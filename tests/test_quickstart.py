"""What `make quickstart` promises, read from the results it left.

The numbers of the full run that docs/ shows are committed (without images) and judged here; a
run that lies in runs/ is judged too. FAST=1, which .ci/run makes first, must run every stage and
make every figure; its values are not judged.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from vistok.eval.results.rows import Results

ROOT = Path(__file__).parents[1]
COMMITTED = ROOT / "eval/gallery/quickstart_results.json"
LENGTHS = (1, 2, 4, 8, 16)


def results(name: str) -> tuple[Results, Path]:
    path = ROOT / "runs" / name / "results.json"
    if not path.is_file():
        pytest.skip(f"{path} is not there; make quickstart (FAST=1 for the fast one) writes it")
    return Results.load(path), path.parent


def value(found: Results, metric: str, length: int | None, guidance: float | None = None) -> float:
    rows = [
        row
        for row in found.rows
        if (row.metric, row.length) == (metric, length)
        and (guidance is None or row.guidance == guidance)
    ]
    assert len(rows) == 1, f"{metric} at {length}: {len(rows)} rows"
    return rows[0].value


@pytest.mark.parametrize("name", ["quickstart-fast", "quickstart"])
def test_every_stage_ran_and_every_figure_is_there(name):
    found, folder = results(name)
    metrics = {(row.metric, row.length) for row in found.rows}
    for length in LENGTHS:
        for metric in ("rFID", "PSNR", "SSIM", "perceptual", "pFID-v1-quick", "gFID", "gFID-val"):
            assert (metric, length) in metrics
    assert {("pFID-v1", 16), ("codebook-usage", 16), ("slot-redundancy", 16)} <= metrics
    assert sum(row.metric == "pFID-v1-cell" for row in found.rows) == 15
    assert any(row.metric == "gFID-untrained" for row in found.rows)
    for row in found.rows:
        assert "photos" in row.display
        if row.metric.startswith(("rFID", "gFID", "pFID", "perceptual")):
            assert "vistok-cnn" in row.display and row.features.sha256
    page = (folder / "report.html").read_text()
    for part in (
        "Reconstructions",
        "Generated images",
        "Perturbed tokens",
        "Codebook",
        "Training",
    ):
        assert part in page
    assert page.count("data:image/png") >= 3 and page.count("<svg") >= 8
    assert (folder / "report.md").is_file()
    for path in (folder, folder / "generator"):
        assert "seed" in yaml.safe_load((path / "config.yaml").read_text())
        assert list((path / "model").glob("model.safetensors"))


@pytest.mark.parametrize("which", ["committed", "here"])
def test_the_full_run_keeps_its_promises(which):
    found = Results.load(COMMITTED) if which == "committed" else results("quickstart")[0]
    psnr = {length: value(found, "PSNR", length) for length in LENGTHS}
    assert psnr[16] >= 19.5
    assert psnr[16] >= value(found, "PSNR-mean-color", None) + 4
    assert psnr[16] >= psnr[1] + 1.5
    for shorter, longer in pairwise(LENGTHS):
        assert psnr[longer] >= psnr[shorter] - 0.1
    assert value(found, "rFID", 16) <= 0.7 * value(found, "rFID", 1)
    assert value(found, "gFID-val", 16, 1.0) <= 0.6 * value(found, "gFID-untrained", 16)
    assert value(found, "codebook-usage", 16) >= 0.2


@pytest.mark.parametrize("metric", ["PSNR", "rFID", "gFID-val", "pFID-v1-quick"])
def test_the_documentation_shows_these_numbers(metric):
    found = Results.load(COMMITTED)
    guidance = 1.0 if metric == "gFID-val" else None
    shown = [f"{value(found, metric, length, guidance):.2f}" for length in LENGTHS]
    lines = (ROOT / "docs/about/measured.md").read_text("utf-8").splitlines()
    table = lines[lines.index("## What quickstart measures") :]
    row = next(line for line in table if line.startswith(f"| {metric}"))
    assert [cell.strip() for cell in row.strip("|").split("|")][1:] == shown
