"""What is told at the end of a run."""

from __future__ import annotations

import copy
import json

import pytest

from tests.support.training import TINY, lines
from vistok.config import validate
from vistok.train.config import TrainConfig
from vistok.train.monitoring.summary import (
    finish,
    next_command,
    read_metrics,
    summarize,
    summary_text,
)


def config_of(**overrides) -> TrainConfig:
    return validate(TrainConfig, {**copy.deepcopy(TINY), "out": "runs/tiny", **overrides})


def train_row(step: int, rate: float, wait: float = 0.0, **rest) -> dict:
    row = {"step": step, "split": "train", "samples": 8 * step, "epoch": step * 0.08}
    return {**row, "images_per_s": rate, "data_wait": wait, **rest}


ROWS = [
    train_row(4, 2.0, 0.5, tflops=0.1, peak_rss_gb=0.5),  # slow: the first one warms up
    train_row(8, 16.0, 0.0, tflops=0.8, mfu=0.4, peak_rss_gb=0.75),
    {"step": 8, "split": "val", "psnr": 10.0},
    train_row(12, 32.0, 0.01, tflops=1.6, mfu=0.6, peak_rss_gb=0.75),
    {"step": 12, "split": "val", "psnr": 20.0, "codebook_usage": 0.5},
]


def test_the_facts_of_a_run():
    s = summarize(config_of(), ROWS, {"bad_samples": 3})
    assert (s["steps"], s["samples"], s["epochs"]) == (12, 96, 0.96)
    assert s["training_seconds"] == 32 / 2 + 32 / 16 + 32 / 32
    assert s["images_per_s"] == 24 and s["tflops"] == pytest.approx(1.2) and s["mfu"] == 0.5
    assert s["data_wait"] == pytest.approx((16 * 0.5 + 1 * 0.01) / 19)
    assert s["peak_rss_gb"] == 0.75 and "peak_memory_gb" not in s
    assert s["validation"] == {"psnr": 20.0, "codebook_usage": 0.5} and s["validated_at"] == 12
    assert s["bad_samples"] == 3
    assert s["model"] == "runs/tiny/model"
    (warning,) = s["warnings"]
    assert "42%" in warning and "workers=0" in warning and "raise `workers`" in warning


def test_little_waiting_is_no_warning():
    assert summarize(config_of(), [train_row(12, 32.0, 0.049)])["warnings"] == []
    assert summarize(config_of(), [train_row(12, 32.0, 0.051)])["warnings"]


def test_skipped_steps_add_up_over_resumes():
    seen = [0, 2, 3, 1, 1]
    rows = [train_row(4 * i + 4, 32.0, skipped_steps=n) for i, n in enumerate(seen)]
    assert summarize(config_of(), rows)["skipped_steps"] == 4
    assert "skipped_steps" not in summarize(config_of(), ROWS)


def test_a_run_that_logged_nothing_still_ends():
    s = summarize(config_of(), [])
    assert s["steps"] == 12 and "images_per_s" not in s
    assert "finished" in summary_text(s)


def test_a_metric_that_is_not_finite_is_told():
    """metrics.jsonl holds null for it: JSON has no other word."""
    rows = [*ROWS[:2], {"step": 12, "split": "val", "psnr": None, "codebook_usage": 0.5}]
    s = summarize(config_of(), rows)
    assert s["validation"] == {"psnr": None, "codebook_usage": 0.5}
    assert "psnr not finite, codebook_usage 0.5 (step 12)" in summary_text(s)


def test_the_command_that_comes_next():
    assert next_command(config_of()) == "vistok eval runs/tiny report=runs/tiny/report.html"
    spaced = next_command(config_of(out="my runs/a"))
    assert spaced == "vistok eval 'my runs/a' report='my runs/a/report.html'"
    generator = config_of(task={"kind": "generator"})
    assert next_command(generator, "runs/q") == (
        "vistok eval runs/q runs/tiny report=runs/tiny/report.html"
    )
    assert "TOKENIZER_RUN runs/tiny" in next_command(generator)
    assert next_command(config_of(task={"kind": "classifier"})) == (
        "vistok eval RUN features=vistok-cnn weights=runs/tiny/model/model.safetensors"
    )


def test_text_fits_but_for_the_command():
    text = summary_text(summarize(config_of(), ROWS, {"skipped_steps": 2}), 80)
    assert text.splitlines() == [
        "finished        12 steps, 96 samples, 0.96 epochs",
        "training        19 s, 24 images/s (median)",
        "                42.2% waiting for data, 1.2 TFLOP/s, 50.0% MFU",
        "peak memory     768 MiB in RAM",
        "validation      psnr 20, codebook_usage 0.5 (step 12)",
        "skipped steps   2",
        "model           runs/tiny/model",
        "warning         42% of the training time was spent waiting for data (workers=0):",
        "                raise `workers`, or keep smaller images on a faster disk",
        "next            vistok eval runs/tiny report=runs/tiny/report.html",
    ]


def test_lines_cut_off_by_a_kill_are_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    path.write_text(json.dumps(ROWS[0]) + "\n" + json.dumps(ROWS[1])[:20])
    assert read_metrics(path) == ROWS[:1]


def test_bad_samples_are_counted_from_the_quarantine(tmp_path):
    (tmp_path / "quarantine.jsonl").write_text('{"name": "a"}\n{"name": "b"}\n')
    record = {"tokenizer": {"name": "runs/q", "sha256": "0"}}
    config = config_of(task={"kind": "generator"})
    text = finish(config, tmp_path, record, {"skipped_steps": 1})
    kept = json.loads((tmp_path / "summary.json").read_text())
    assert kept["bad_samples"] == 2 and kept["skipped_steps"] == 1
    assert "vistok eval runs/q runs/tiny" in text
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_run_ends_with_its_summary(run, capsys):
    folder = run(TINY, counted=True)
    s = json.loads((folder / "summary.json").read_text())
    assert s["steps"] == 12 and s["images_per_s"] > 0 and s["tflops"] > 0
    last = lines(folder, "val")[-1]
    assert s["validation"]["psnr"] == last["psnr"]
    assert (folder / "model" / "model.safetensors").is_file() and s["model"] == f"{folder}/model"
    printed = capsys.readouterr().out
    assert f"vistok eval {folder} report={folder}/report.html" in printed
