"""Which charts a report holds: results -> figures. Drawing itself is in `figures`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from eval.figures import Series, bar_chart, heat_map, line_chart
from eval.rows import Results, Row, display
from eval.words import shown, word

_SWEEP = ("PSNR", "rFID", "perceptual", "LPIPS", "SSIM", "pFID-v1-quick", "gFID", "bytes/image")
_LOSSES = (
    "loss",
    "l1",
    "l2",
    "perceptual",
    "gan",
    "nll",
    "commitment",
    "codebook",
    "entropy_sample",
    "entropy_batch",
    "critic_loss",
)
_POINTS = 300  # of a loss curve; more cannot be seen


def sweep_charts(results: Results) -> list[Markup]:
    """Each metric over the kept length, one line a run; only where there are two lengths."""
    charts = []
    names = [run["name"] for run in results.runs]
    for metric in _SWEEP:
        series = []
        for place, run in enumerate(names):
            rows = _one_guidance(results.find(metric, run))
            points = tuple(sorted((float(r.length), r.value) for r in rows if r.value is not None))
            if len(points) > 1:
                series.append(Series(run, points, place=place))
        if not series:
            continue
        ticks = sorted({x for s in series for x, _ in s.points})
        if metric == "PSNR":
            series += _floors(results, ticks)
        first = results.find(metric)[0]
        charts.append(
            line_chart(
                _title(metric, first),
                series,
                log_x=True,
                x_ticks=ticks,
                x_title="kept length",
                form=lambda v, m=metric: shown(v, m),
            )
        )
    return charts


def _floors(results: Results, ticks: Sequence[float]) -> list[Series]:
    """The mean-colour PSNR of each data set, dashed."""
    rows = results.find("PSNR-mean-colour")
    values = dict.fromkeys(row.value for row in rows if row.value is not None)
    return [
        Series("mean colour", ((ticks[0], v), (ticks[-1], v)), dots=False, dashed=True, place=5)
        for v in values
    ]


def heat_maps(results: Results, run: str) -> list[Markup]:
    """pFID-v1 (and -rel) as alpha x delta."""
    maps = []
    for name in ("pFID-v1", "pFID-v1-rel"):
        rows = [row for row in results.find(f"{name}-cell", run) if row.value is not None]
        if not rows:
            continue
        alphas = sorted({row.perturbation.alpha for row in rows})
        deltas = sorted({row.perturbation.delta_asked for row in rows})
        at = {(r.perturbation.alpha, r.perturbation.delta_asked): r for r in rows}
        used = {r.perturbation.delta_asked: r.perturbation.delta for r in rows}
        maps.append(
            heat_map(
                display(name, rows[0].features, rows[0].reference),
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
    """How often each code occurs, sorted, and the entropy at each position."""
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


def _one_guidance(rows: list[Row]) -> list[Row]:
    """gFID's sweep is at one guidance: that of the rows below full length."""
    scales = [row.decode.guidance for row in rows]
    most = max(set(scales), key=scales.count) if scales else None
    return [row for row in rows if row.decode.guidance == most]


def _title(metric: str, row: Row) -> str:
    unit = " (dB)" if metric == "PSNR" else ""
    return display(word(metric).title.removesuffix(unit), row.features, row.reference) + unit
