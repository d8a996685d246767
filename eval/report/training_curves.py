"""Training curves: losses and validation numbers over steps, all runs of a kind in one chart.

They come from the thinned metrics.jsonl of each run in results.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from vistok.eval.report.comparison import places
from vistok.eval.report.figures import Series, legend, line_chart
from vistok.eval.results.rows import Results

_LOSSES = (
    "loss",
    "l1",
    "l2",
    "perceptual",
    "adversarial",
    "nll",
    "commitment",
    "codebook",
    "entropy_sample",
    "entropy_batch",
    "discriminator_loss",
)
_VALIDATED = ("psnr", "nll", "codebook_usage", "accuracy")
_UNITS = {"psnr": "PSNR (dB)"}
_POINTS = 300  # of a curve; more cannot be seen
_LENGTHS = 6  # curves of one run's validation PSNR


@dataclass(frozen=True)
class Training:
    """The charts of the runs of one kind, and the legend that they share."""

    title: str
    legend: Markup
    charts: tuple[Markup, ...]


def training(results: Results) -> list[Training]:
    """Charts of tokenizers and of generators; [] where no run has a history.

    Where there is one of each, both stand in one group, and the generator's charts say so.
    """
    kinds = {}
    for run in results.runs:
        if run.get("history"):
            kinds.setdefault(run["kind"], []).append(run)
    single = all(len(runs) == 1 for runs in kinds.values())
    found = []
    for kind, runs in kinds.items():
        of = f" ({kind})" if single and len(kinds) > 1 else ""
        charts = [*_losses(runs, results, of), *_validation(runs, results, of)]
        names = [Series(run["name"], (), **_look(run, results)) for run in runs if len(runs) > 1]
        title = f"{kind.capitalize()}s" if len(kinds) > 1 else ""
        found.append(Training(title, legend(names), tuple(filter(None, charts))))
    if single and found:
        every = tuple(chart for one in found for chart in one.charts)
        found = [Training("", Markup(""), every)]
    return [one for one in found if one.charts]


def _losses(runs: Sequence[dict[str, Any]], results: Results, of: str) -> list[Markup]:
    charts = []
    lines = {run["name"]: _of(run, "train") for run in runs}
    for name in _LOSSES:
        own = [run for run in runs if any(name in line for line in lines[run["name"]])]
        # A total that equals its only term would be drawn twice.
        single = [run for run in own if _doubled(lines[run["name"]], name)]
        if not own or single == own:
            continue
        series = [_curve(name, lines[run["name"]], run, results) for run in own]
        log = all(y > 0 for one in series for _, y in one.points)
        title = name.replace("_", " ") + of
        charts.append(line_chart(title, series, log_y=log, x_title="step", named=False))
    return charts


def _validation(runs: Sequence[dict[str, Any]], results: Results, of: str) -> list[Markup]:
    charts = []
    for name in _VALIDATED:
        lines = {run["name"]: _of(run, "val") for run in runs}
        own = [run for run in runs if sum(name in line for line in lines[run["name"]]) > 1]
        if not own:
            continue
        title = f"validation {_UNITS.get(name, name.replace('_', ' '))}{of}"
        if len(runs) == 1 and name == "psnr":
            series = _lengths(lines[runs[0]["name"]])
        else:
            series = [_curve(name, lines[run["name"]], run, results) for run in own]
        charts.append(line_chart(title, series, x_title="step", named=len(runs) == 1))
    return charts


def _lengths(lines: Sequence[dict[str, Any]]) -> list[Series]:
    """Validation PSNR of one run: a curve for each length, of many for the longest."""
    keys = {key for line in lines for key in line if key == "psnr" or key.startswith("psnr@")}
    ordered = sorted(keys, key=lambda key: int(key.partition("@")[2] or 10**9))
    name = lambda key: f"{key.partition('@')[2]} tokens" if "@" in key else "whole"
    return [Series(name(key), _points(key, lines)) for key in ordered[-_LENGTHS:]]


def _of(run: dict[str, Any], split: str) -> list[dict[str, Any]]:
    return [line for line in run.get("history") or () if line.get("split") == split]


def _look(run: dict[str, Any], results: Results) -> dict[str, int]:
    """Color of the run, and dashes that tell several generators of one tokenizer apart."""
    pairs = results.facts.get("pairs") or {}
    own = next((names for names in pairs.values() if run["name"] in names), [run["name"]])
    turn = own.index(run["name"])
    return {"place": places(results).get(run["name"], 0), **({"dash": turn} if turn else {})}


def _curve(
    key: str, lines: Sequence[dict[str, Any]], run: dict[str, Any], results: Results
) -> Series:
    points = _points(key, lines)
    return Series(run["name"], points, dots=len(points) < 12, **_look(run, results))


def _points(key: str, lines: Sequence[dict[str, Any]]) -> tuple[tuple[float, float], ...]:
    points = [
        (float(line["step"]), float(line[key]))
        for line in lines
        if isinstance(line.get(key), int | float) and "step" in line
    ]
    every = max(1, -(-len(points) // _POINTS))
    kept = points[::every]
    if points and kept[-1] != points[-1]:
        kept.append(points[-1])
    return tuple(kept)


def _doubled(lines: Sequence[dict[str, Any]], name: str) -> bool:
    """True for a total that equals one of its terms throughout."""
    return name == "loss" and any(_same(lines, name, other) for other in _LOSSES[1:])


def _same(lines: Sequence[dict[str, Any]], a: str, b: str) -> bool:
    both = [(line[a], line[b]) for line in lines if a in line and b in line]
    return bool(both) and len(both) == len(lines) and all(x == y for x, y in both)
