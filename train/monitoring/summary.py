"""The summary of a finished run, computed from its config and its metrics.jsonl."""

from __future__ import annotations

import json
import shlex
import statistics
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from vistok.config.bounded import parse_json, read_json
from vistok.storage.files import write_text
from vistok.train.config import TrainConfig
from vistok.train.monitoring import overfitting
from vistok.train.monitoring.text import duration, fact, fit, size

_WAIT = 0.05  # share of the time spent waiting for data above which something should change
_PEAKS = ("peak_memory_gb", "peak_rss_gb")
_SUMMARY = "summary.json"
VALIDATION_FAILED, GRID_FAILED = "validation failed", "grid failed"  # kinds of alarms
_USUALLY_FIRST = 1  # lines that warm-up (compilation, caches) makes slow


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; one that a kill cut off is left out."""
    rows = []
    for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
        try:
            rows.append(parse_json(line, path))
        except ValueError:
            continue
    return [row for row in rows if isinstance(row, dict)]


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary of a run's folder; {} if there is none, or one that a kill cut off."""
    try:
        summary = read_json(folder / _SUMMARY)
    except (OSError, ValueError):
        return {}
    return summary if isinstance(summary, dict) else {}


def summarize(
    config: TrainConfig,
    rows: Iterable[Mapping[str, Any]],
    counts: Mapping[str, int] | None = None,
    tokenizer: str | None = None,
    record: Mapping[str, str] | None = None,
    unit: str = "image",
    warnings: Iterable[str] = (),
) -> dict[str, Any]:
    """Facts of a finished run, JSON.

    Args:
        rows: of metrics.jsonl, over all resumes.
        counts: what the run counted besides: `bad_samples`.
        tokenizer: folder of the tokenizer whose tokens a generator learned, if known.
        record: the task's.
        unit: the noun of a sample: "image", "clip" or "sample".
        warnings: lines about the run that were found while it trained.
    """
    rows = list(rows)
    train = [row for row in rows if row.get("split") == "train" and "images_per_s" in row]
    val = [row for row in rows if row.get("split") == "val"]
    spans = _spans(train)
    # The first line pays for warm-up: it tells nothing about the rest.
    settled = spans[_USUALLY_FIRST:] or spans
    seconds = sum(span for span, _ in spans)
    last = train[-1] if train else {}
    facts: dict[str, Any] = {
        "name": config.name,
        "task": config.task.kind,
        "unit": unit,
        "steps": config.steps,
        "samples": config.steps * config.batch_size,
        "epochs": last.get("epoch"),
        "training_seconds": seconds,
        "images_per_s": _median(row["images_per_s"] for _, row in settled),
        "data_wait": (
            sum(span * row.get("data_wait", 0.0) for span, row in spans) / seconds
            if seconds
            else None
        ),
        "tflops": _median(row["tflops"] for _, row in settled if "tflops" in row),
        "mfu": _median(row["mfu"] for _, row in settled if "mfu" in row),
        **{name: max((row[name] for row in train if name in row), default=None) for name in _PEAKS},
        "validation": _scalars(val[-1]) if val else None,
        "validated_at": val[-1].get("step") if val else None,
        "skipped_steps": _skipped(train),
        **(counts or {}),
        **(record or {}),
        "model": f"{config.folder}/model",
        "next": next_command(config, tokenizer),
        "warnings": [],
    }
    if facts["data_wait"] is not None and facts["data_wait"] > _WAIT:
        facts["warnings"].append(
            f"{facts['data_wait']:.0%} of the training time was spent waiting for data (workers="
            f"{config.workers}): raise `workers`, or keep smaller images on a faster disk"
        )
    facts["warnings"] += warnings
    return {name: value for name, value in facts.items() if value is not None}


def next_command(config: TrainConfig, tokenizer: str | None = None) -> str:
    """The command to run next: the one that evaluates the model, or that uses a network."""
    own = f" plugins={','.join(config.plugins)}" if config.plugins else ""
    return _next(config, tokenizer) + own


def _next(config: TrainConfig, tokenizer: str | None) -> str:
    folder = shlex.quote(config.folder)
    if config.task.kind == "classifier":
        weights = shlex.quote(f"{config.folder}/model/model.safetensors")
        return f"vistok eval RUN features=vistok-cnn weights={weights}"
    report = f"report={shlex.quote(f'{config.folder}/report.html')}"
    if config.task.kind == "generator":
        owner = "TOKENIZER_RUN" if tokenizer is None else shlex.quote(tokenizer)
        return f"vistok eval {owner} {folder} {report}"
    return f"vistok eval {folder} {report}"


def summary_text(summary: Mapping[str, Any], width: int = 80) -> str:
    """The summary for a terminal."""
    s = summary
    epochs = f", {s['epochs']:.4g} epochs" if s.get("epochs") is not None else ""
    lines = [fact("finished", f"{s['steps']:,} steps, {s['samples']:,} samples{epochs}")]
    if s.get("images_per_s"):
        speed = f"{s['images_per_s']:,.4g} {s.get('unit', 'image')}s/s (median)"
        rate = f"{duration(s['training_seconds'])}, {speed}"
        lines.append(fact("training", rate))
        shares = [f"{s['data_wait']:.1%} waiting for data"]
        if "tflops" in s:
            shares.append(f"{s['tflops']:.3g} TFLOP/s")
        if "mfu" in s:
            shares.append(f"{s['mfu']:.1%} MFU")
        lines.append(fact("", ", ".join(shares)))
    names = {"peak_memory_gb": "on the GPU", "peak_rss_gb": "in RAM"}
    peaks = [f"{size(s[name] * 2**30)} {where}" for name, where in names.items() if name in s]
    if peaks:
        lines.append(fact("peak memory", ", ".join(peaks)))
    if "validation" in s:
        values = ", ".join(f"{name} {_number(value)}" for name, value in s["validation"].items())
        lines.append(fact("validation", f"{values} (step {s['validated_at']:,})"))
    for name in ("skipped_steps", "bad_samples"):
        if s.get(name):
            lines.append(fact(name.replace("_", " "), f"{s[name]:,}"))
    lines += [fact("model", s["model"])]
    lines += [fact("warning", warning) for warning in s["warnings"]]
    # The command is never wrapped: it is there to be copied.
    return "\n".join([*fit(lines, width), fact("next", s["next"])])


def finish(
    config: TrainConfig,
    folder: Path,
    record: Mapping[str, Any],
    counts: Mapping[str, int] | None = None,
    width: int = 100,
    task: Mapping[str, str] | None = None,
    unit: str = "image",
) -> str:
    """Write `folder/summary.json` from what the run left there; the text to print.

    Args:
        record: of the training data. counts: as in `summarize`; bad samples are counted here.
        task: the task's own record. unit: as in `summarize`.
    """
    names = len({str(row.get("name")) for row in read_metrics(folder / "quarantine.jsonl")})
    tokenizer = (record.get("tokenizer") or {}).get("name")
    rows = read_metrics(folder / "metrics.jsonl")
    counts = {"bad_samples": names, **(counts or {})}
    warnings = [*_overfits(folder, rows), *_failures(folder)]
    summary = summarize(config, rows, counts, tokenizer, task, unit, warnings)
    write_text(folder / _SUMMARY, json.dumps(summary, indent=2) + "\n")
    return summary_text(summary, width)


def _overfits(folder: Path, rows: list[dict[str, Any]]) -> list[str]:
    """The alarm of the last validation, if it raised one."""
    validated = [row.get("step") for row in rows if row.get("split") == "val"]
    return [
        str(alarm.get("text"))
        for alarm in read_metrics(folder / "alarms.jsonl")
        if alarm.get("alarm") == overfitting.ALARM and alarm.get("step") in validated[-1:]
    ]


def _failures(folder: Path) -> list[str]:
    """The last failure of a validation and of a grid, and how many there were."""
    alarms = read_metrics(folder / "alarms.jsonl")
    found = []
    for what in (VALIDATION_FAILED, GRID_FAILED):
        texts = [str(alarm.get("text")) for alarm in alarms if alarm.get("alarm") == what]
        if texts:
            times = f" ({len(texts)} times in all)" if len(texts) > 1 else ""
            found.append(texts[-1] + times)
    return found


def _spans(train: list[Mapping[str, Any]]) -> list[tuple[float, Mapping[str, Any]]]:
    """(seconds of training that a line reports on, the line); pauses are in no line's rate."""
    spans, before = [], 0
    for row in train:
        samples = row["samples"] - before
        if samples > 0 and row["images_per_s"] > 0:
            spans.append((samples / row["images_per_s"], row))
        before = row["samples"]
    return spans


def _skipped(train: list[Mapping[str, Any]]) -> int | None:
    """Steps that were skipped, over all resumes: each starts to count from zero."""
    seen = [int(row["skipped_steps"]) for row in train if row.get("skipped_steps") is not None]
    falls = [before for before, now in pairwise(seen) if now < before]
    return sum(falls) + seen[-1] if seen else None


def _median(values: Iterable[float]) -> float | None:
    values = list(values)
    return statistics.median(values) if values else None


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


def _scalars(row: Mapping[str, Any]) -> dict[str, float | None]:
    """The numbers of a line; null, which stands for one that is not finite, stays."""
    return {
        name: value
        for name, value in row.items()
        if name not in ("step", "split") and isinstance(value, int | float | None)
    }
