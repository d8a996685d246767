"""The stages of `make quickstart-video` in tiny form, and the results of a run that lies here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from vistok.cli import main
from vistok.eval.results.rows import Results

ROOT = Path(__file__).parents[1]
RECONSTRUCTED = (
    "rFID-frame",
    "rFVD",
    "PSNR",
    "SSIM",
    "perceptual",
    "flicker",
    "PSNR-change",
    "pFID-v1-quick-frame",
)
GENERATED = ("gFID-frame", "gFVD", "gFVD-val", "gFVD-untrained")
# Changes that make each stage of the Makefile a matter of a second.
_NETWORK = "width=16,depth=1,heads=2"
TINY = {
    "train quickstart/video": [
        *(f"task.tokenizer.{part}.transformer.{one}" for part in ("encoder", "decoder")
          for one in _NETWORK.split(",")),
        *("steps=2", "warmup=1", "batch_size=2"),
        *("validate_every=0", "grid_every=0", "save_every=0", "workers=0", "data.val_count=4"),
        *("trackers=[]", "precision=fp32"),
    ],
    "cache": ["limit=8", "data.val_count=4", "batch=4"],
    "train quickstart/video_generator": [
        *(f"task.generator.transformer.{one}" for one in _NETWORK.split(",")),
        *("steps=2", "warmup=1", "batch_size=4", "validate_every=0", "save_every=0", "workers=0"),
        *("trackers=[]", "precision=fp32"),
    ],
    "eval": ["limit=4", "gfid.samples=4", "gfid.seeds=1", "gfid.train_images=4", "gfid.guidance=1.0"],
}  # fmt: skip


def stages() -> list[list[str]]:
    """Words of the target's commands, without what FAST changes."""
    text = (ROOT / "Makefile").read_text("utf-8")
    recipe = re.search(r"^quickstart-video:.*\n((?:\t.*\n)+)", text, re.M)[1]
    lines = [re.sub(r"\$\(VIDEO_\w+\)", "", line) for line in recipe.splitlines()]
    return [line.replace('"', "").split()[1:] for line in lines]


def check(results: Results, folder: Path) -> None:
    """Every stage ran, every number and every clip is there."""
    metrics = {row.metric for row in results.rows}
    assert {*RECONSTRUCTED, *GENERATED} <= metrics
    assert {row.setting["preset"] for row in results.find("rFVD")} == {"own"}
    assert all(row.features.name == "vistok-cnn frames" for row in results.find("gFVD"))
    page = (folder / "report.html").read_text("utf-8")
    for part in ("Reconstructions", "Generated clips", "Over time", "stop the clips"):
        assert part in page
    assert page.count("data-moving>") >= 10 and page.count("data:image/webp") >= 10
    assert (folder / "report.md").is_file() and (folder / "generator" / "model").is_dir()


@pytest.mark.filterwarnings("ignore:Fréchet")
def test_every_stage_in_tiny_form(tmp_path, monkeypatch):
    run = str(tmp_path / "run")
    changed = set()
    for words in stages():
        words = [word.replace("$(VIDEO)", run) for word in words]
        name = words[0] if words[0] != "train" else " ".join(words[:2])
        changed.add(name)
        done = CliRunner().invoke(main, [*words, *TINY[name]], catch_exceptions=False)
        assert done.exit_code == 0, done.output
    assert changed == set(TINY)
    check(Results.load(tmp_path / "run" / "results.json"), tmp_path / "run")


@pytest.mark.parametrize("name", ["quickstart-video-fast", "quickstart-video"])
def test_the_run_that_lies_here(name):
    folder = ROOT / "runs" / name
    if not (folder / "results.json").is_file():
        pytest.skip(f"make quickstart-video writes {folder}")
    results = Results.load(folder / "results.json")
    check(results, folder)
    if name == "quickstart-video":
        whole = lambda metric: max(results.find(metric), key=lambda row: row.length or 0).value
        assert whole("PSNR") >= whole("PSNR-mean-color") + 4
        trained = [row.value for row in results.find("gFVD") if row.guidance == 1.0]
        assert trained[0] < 0.6 * results.find("gFVD-untrained")[0].value
