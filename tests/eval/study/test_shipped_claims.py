"""The studies of papers' claims that come with vistok, and their committed results."""

from __future__ import annotations

from pathlib import Path

import pytest

from vistok.config import shipped
from vistok.eval.results.rows import Results
from vistok.eval.study.study import read_study, run_config

STUDIES = shipped.folder() / "studies/claims"
ROOT = Path(__file__).parents[3]
GALLERY = ROOT / "eval/gallery/claims"
DOCS = ROOT / "docs/ideas/claims.md"
NAMES = ("pfid", "perturbation", "post_training", "lengths", "binary", "fewer_tokens")


def test_every_file_is_known():
    assert {path.stem for path in STUDIES.glob("*.yaml")} == {*NAMES, "tokenizer", "eyes"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", ["cpu", "gpu"])
def test_every_run_has_a_config(name, scale):
    study = read_study(STUDIES / f"{name}.yaml", [f"scale={scale}"])
    assert study.claims
    for run in study.runs:
        config = run_config(study, run)
        losses = getattr(config.task, "losses", ())
        for loss in losses:
            if loss.kind == "perceptual":  # the metric looks through the embedded network
                assert loss.weights_path == f"{study.home}/eyes/model/model.safetensors"
    assert "vistok-cnn" in study.evaluate.features


def test_one_run_is_the_same_in_every_study():
    """A run that two studies name is made once, so both must say the same of it."""
    found = {}
    for name in NAMES:
        study = read_study(STUDIES / f"{name}.yaml")
        for run in study.runs:
            config = run_config(study, run)
            assert found.setdefault(config.folder, config) == config, (name, run)
    assert len(found) > 15


@pytest.mark.parametrize("path", sorted(GALLERY.glob("*.json")), ids=lambda path: path.stem)
def test_committed_results_are_valid_and_quoted(path):
    results = Results.load(path)
    page = DOCS.read_text(encoding="utf-8")
    study = results.facts["study"]
    assert f"vistok study claims/{study['name']}" in page
    for claim in study["claims"]:
        assert claim["says"] in page and claim["verdict"] in page, claim["id"]
    longest = {}
    for row in results.rows:
        own = row.features is not None and row.features.name == "vistok-cnn"
        if own and row.metric in ("rFID", "gFID", "pFID-v1-rel-quick") and row.plain:
            key = row.run, row.metric
            longest[key] = max(longest.get(key, row), row, key=lambda one: one.length or 0)
    assert longest
    for (place, metric), row in longest.items():
        parts = place.removesuffix("-ar").split("/")  # a generator of the study's own
        run = next(part for part in parts if not part.startswith("seed"))
        lines = [line for line in page.splitlines() if line.startswith(f"| `{run}`")]
        assert any(f"| {row.value:.2f}" in line for line in lines), (run, metric, row.value)
