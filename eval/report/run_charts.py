"""Charts of one run: pFID's maps, its codebook, its positions, its training. `curves` has those of
all runs on one axis; drawing itself is in `figures`."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from vistok.eval.report.figures import Series, bar_chart, heat_map, line_chart
from vistok.eval.results.metrics import names
from vistok.eval.results.rows import Results, display
from vistok.eval.results.text import mark

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
_POINTS = 300  # of a loss curve; more cannot be seen


def heat_maps(results: Results, run: str) -> list[Markup]:
    """Maps of the metrics that are means over a grid: alpha x delta of pFID."""
    maps = []
    for name in names(lambda one: one.cells):
        rows = [row for row in results.find(f"{name}-cell", run) if row.value is not None]
        if not rows:
            continue
        at = {(row.point["alpha"], row.point["delta"]): row for row in rows}
        alphas, deltas = (sorted(set(values)) for values in zip(*at, strict=True))
        used = {delta: round(row.measured["delta"]) for (_, delta), row in at.items()}
        maps.append(
            heat_map(
                display(name, rows[0].features, rows[0].reference) + mark(*rows),
                [f"{alpha:g}" for alpha in alphas],
                [str(used[delta]) for delta in deltas],
                [[at[alpha, delta].value for delta in deltas] for alpha in alphas],
                row_title="α",
                column_title="δ",
                form=lambda v: f"{v:.2f}",
            )
        )
    return maps


def codebook_charts(facts: dict[str, Any]) -> list[Markup]:
    """Charts of how often each code occurs, sorted, and the entropy at each position."""
    counts = tuple((float(rank + 1), float(count)) for rank, count in facts["sorted_counts"])
    title = f"{facts['used']:,} of {facts['codes']:,} codes occur"
    charts = [
        line_chart(
            title, [Series("count", counts, dots=False)], x_title="codes, most frequent first"
        )
    ]
    if facts.get("position_entropy"):
        charts.append(
            bar_chart(
                "entropy of each position (bits)",
                facts["position_entropy"],
                x_title="position",
                form=lambda v: f"{v:.2f}",
            )
        )
    return charts


def order_charts(facts: dict[str, Any]) -> list[Markup]:
    """Charts of each position: entropy of its codes, and change of the image with its code."""
    charts = []
    for key, title, form in (
        ("entropy", "entropy of each position (bits)", lambda v: f"{v:.2f}"),
        ("change", "mean squared change of the image", lambda v: f"{v:.2g}"),
    ):
        if facts.get(key):
            charts.append(bar_chart(title, facts[key], x_title="position", form=form))
    return charts


def training_charts(run: dict[str, Any]) -> list[Markup]:
    """Losses and validation numbers of metrics.jsonl over steps."""
    history = run.get("history") or []
    train = [line for line in history if line.get("split") == "train"]
    val = [line for line in history if line.get("split") == "val"]
    names = [n for n in _LOSSES if any(n in line for line in train)]
    # A total that equals its only term would be drawn twice.
    if "loss" in names and any(_same(train, "loss", other) for other in names[1:]):
        names.remove("loss")
    charts = [
        line_chart(
            name.replace("_", " "),
            [_curve(name, train)],
            log_y=_positive(train, name),
            x_title="step",
        )
        for name in names
    ]
    psnr = sorted(
        {key for line in val for key in line if key == "psnr" or key.startswith("psnr@")},
        key=lambda key: int(key.partition("@")[2] or 10**9),
    )
    if psnr and len(val) > 1:
        named = lambda key: f"{key.partition('@')[2]} tokens" if "@" in key else "whole"
        series = [_curve(key, val, named(key), dots=True) for key in psnr]
        charts.append(line_chart("validation PSNR (dB)", series[-6:], x_title="step"))
    for key in ("nll", "codebook_usage", "accuracy"):
        if sum(key in line for line in val) > 1:
            title = f"validation {key.replace('_', ' ')}"
            charts.append(line_chart(title, [_curve(key, val, dots=True)], x_title="step"))
    return [chart for chart in charts if chart]


def _curve(key: str, lines: list[dict], name: str = "", dots: bool = False) -> Series:
    points = [
        (float(line["step"]), float(line[key]))
        for line in lines
        if isinstance(line.get(key), int | float) and "step" in line
    ]
    every = max(1, -(-len(points) // _POINTS))
    kept = points[::every]
    if points and kept[-1] != points[-1]:
        kept.append(points[-1])
    return Series(name or key, tuple(kept), dots=dots and len(kept) < 30)


def _same(lines: list[dict], a: str, b: str) -> bool:
    both = [(line[a], line[b]) for line in lines if a in line and b in line]
    return len(both) == len(lines) and all(x == y for x, y in both)


def _positive(lines: list[dict], key: str) -> bool:
    return all(line[key] > 0 for line in lines if isinstance(line.get(key), int | float))
