"""Charts of clips over time: each metric at each frame, one line a run."""

from __future__ import annotations

from markupsafe import Markup

from vistok.eval.report.comparison import places
from vistok.eval.report.figures import Series, line_chart
from vistok.eval.report.naming import ARROWS
from vistok.eval.results.compare import differences
from vistok.eval.results.metrics import metric, shown
from vistok.eval.results.rows import Results, Row


def time_charts(results: Results) -> list[Markup]:
    """A chart for each metric (and network, data) that was measured at single frames."""
    groups: dict[tuple, dict[str, list[Row]]] = {}
    for row in results.rows:
        if "frame" in row.point and row.value is not None:
            groups.setdefault((row.display, row.clip), {}).setdefault(row.run, []).append(row)
    colors, charts = places(results), []
    for (display, sides), runs in groups.items():
        first = next(iter(runs.values()))[0]
        name = first.metric.removesuffix("-cell")
        found, lines, ticks = metric(name), [], set()
        for run, rows in runs.items():
            points = tuple(sorted((row.point["frame"] + 1, row.value) for row in rows))
            ticks |= {place for place, _ in points}
            apart = [one for one in differences(first, rows[0]) if not one.startswith("point.")]
            remark = f" (≠ {', '.join(apart)})" if apart else ""
            lines.append(Series(run, points, place=colors.get(run, 0), remark=remark))
        several = sum(name == display for name, _ in groups) > 1
        of = f", clips of {'x'.join(map(str, sides))}" if several and sides else ""
        charts.append(
            line_chart(
                f"{found.heading} at each frame{of} {ARROWS[found.better]}".strip(),
                lines,
                x_ticks=sorted(ticks),
                x_title="frame",
                form=lambda value, name=name: shown(value, name),
                tip=display.replace("-cell", ""),
                named=False,
            )
        )
    return charts
