"""Charts of one run: pFID's maps, its codebook, its positions. `curves` and `training_curves` have
those of all runs on one axis; drawing itself is in `figures`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from vistok.eval.report.figures import Series, bar_chart, heat_map, line_chart
from vistok.eval.report.naming import Naming
from vistok.eval.results.metrics import names
from vistok.eval.results.rows import Results
from vistok.eval.results.text import mark


def heat_maps(results: Results, run: str, naming: Naming) -> list[Markup]:
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
                naming.of(rows[0].model_copy(update={"metric": name}), False).text + mark(*rows),
                [f"{alpha:g}" for alpha in alphas],
                [str(used[delta]) for delta in deltas],
                [[at[alpha, delta].value for delta in deltas] for alpha in alphas],
                row_title="α",
                column_title="δ",
                form=lambda v: f"{v:.2f}",
            )
        )
    return maps


def codebook_charts(books: Mapping[str, dict[str, Any]], colors: Mapping[str, int]) -> list[Markup]:
    """Charts of how often each code occurs, sorted, and the entropy at each position; of several
    runs all in one."""
    if len(books) == 1:
        return _codebook(*books.values())
    look = lambda run: {"dots": False, "place": colors.get(run, 0)}
    counts = [
        Series(
            run, tuple((float(rank + 1), float(n)) for rank, n in own["sorted_counts"]), **look(run)
        )
        for run, own in books.items()
    ]
    entropies = [
        Series(run, tuple(enumerate(map(float, own["position_entropy"]), 1)), **look(run))
        for run, own in books.items()
        if own.get("position_entropy")
    ]
    return [
        chart
        for chart in (
            line_chart("count of each code", counts, log_x=True, log_y=True,
                       x_title="codes, most frequent first", named=False),
            line_chart("entropy of each position (bits)", entropies, x_title="position",
                       form=lambda v: f"{v:.2f}", named=False),
        )
        if chart
    ]  # fmt: skip


def _codebook(facts: dict[str, Any]) -> list[Markup]:
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
