"""Charts of a study's claims: differences with their intervals, curves with bands, scatter plots.

A chart comes as plain data (`facts.study.claims`, made by eval/study/claims). `standalone` makes a
file of its SVG, for papers and galleries, where the page's colors are not at hand.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from vistok.eval.report.figures import (
    Point,
    Series,
    color,
    frame,
    legend,
    number_text,
    scale_of,
    scatter,
    text_at,
    ticks_of,
)
from vistok.eval.results.metrics import shown
from vistok.eval.results.text import signed

_WIDTH, _RIGHT = 340, 12
_LEFT, _TOP, _BOTTOM = 46, 26, 34
_LINE = 34  # height of a row of differences
_ROW, _STEP = 3, 364  # charts in a row of a file, and from one to the next
_PAPER = {  # the light theme of report.css
    "--series-1": "#b4451f",
    "--series-2": "#2563a8",
    "--series-3": "#2e7d4f",
    "--series-4": "#8a4fa3",
    "--series-5": "#a06c00",
    "--series-6": "#0a7f88",
    "--series-7": "#c2417c",
    "--series-8": "#6d5c4a",
    "--base": "#737984",
}
_STYLE = (
    "text{font-family:system-ui,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif}"
    ".title{fill:#1e2126;font-size:13px;font-weight:600}"
    ".tick,.axis{fill:#585f6a;font-size:11px}.rule{stroke:#e2dfd8;stroke-width:1}"
)


def draw(chart: Mapping[str, Any]) -> Markup:
    """The chart and its legend."""
    return {"differences": _differences, "curves": _curves, "scatter": _scatter}[chart["kind"]](
        chart
    )


def _scatter(chart: Mapping[str, Any]) -> Markup:
    points = [Point(name, x, y) for name, x, y in chart["points"]]
    return scatter(chart["title"], points, x_title=chart["x_title"], y_title=chart["y_title"])


def _differences(chart: Mapping[str, Any]) -> Markup:
    """A row for each pair: a dot a seed, a bar for the interval of the mean, a stroke for the mean;
    a line at no difference, and a band where "about equal" lies."""
    rows, band = chart["rows"], chart.get("band")
    form = _percent if chart["share"] else lambda v: _signed(v, chart["metric"])
    values = [v for row in rows for v in (*row["dots"], row["mean"], *(row["interval"] or ()))]
    values = [v for v in (*values, 0.0, *(band or ())) if v is not None and math.isfinite(v)]
    fx = scale_of(values, False, 8, _WIDTH - _RIGHT, pad=0.04)
    bottom = _TOP + _LINE * len(rows)
    body = []
    if band:
        body.append(
            f'<rect x="{fx(band[0]):.1f}" y="{_TOP - 4}" width="{fx(band[1]) - fx(band[0]):.1f}" '
            f'height="{bottom - _TOP + 4}" fill="var(--base)" opacity=".16">'
            f"<title>about equal: {form(band[0])} to {form(band[1])}</title></rect>"
        )
    body += _axis_below(fx, values, bottom, form)
    zero = fx(0.0)
    body.append(
        f'<line x1="{zero:.1f}" x2="{zero:.1f}" y1="{_TOP - 4}" y2="{bottom}" '
        'stroke="var(--base)" stroke-width="1.5"/>'
    )
    for place, row in enumerate(rows):
        body += _difference(row, place, fx, form)
    return frame(chart["title"], body, bottom + 22)


def _difference(
    row: Mapping[str, Any], place: int, fx: Callable[[float], float], form: Callable[[float], str]
) -> list[str]:
    y, ink = _TOP + _LINE * place + 24, color(place)
    body = [text_at(8, y - 13, row["name"], "start")]
    if row["interval"] is not None:
        low, high = row["interval"]
        tip = escape(f"{row['name']}: 95% interval {form(low)} to {form(high)}")
        body.append(
            f'<line x1="{fx(low):.1f}" x2="{fx(high):.1f}" y1="{y}" y2="{y}" stroke="{ink}" '
            f'stroke-width="5" stroke-linecap="round" opacity=".4"><title>{tip}</title></line>'
        )
    for value in row["dots"]:
        tip = escape(f"{row['name']}: {form(value)}")
        body.append(
            f'<circle cx="{fx(value):.1f}" cy="{y}" r="3.2" fill="{ink}"><title>{tip}</title>'
            "</circle>"
        )
    if row["mean"] is not None and math.isfinite(row["mean"]):
        x = fx(row["mean"])
        tip = escape(f"{row['name']}: mean {form(row['mean'])}")
        body.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y - 7}" y2="{y + 7}" stroke="{ink}" '
            f'stroke-width="2.5"><title>{tip}</title></line>'
        )
    return body


def _curves(chart: Mapping[str, Any]) -> Markup:
    """Mean curves with their bands, and a small dot for each seed."""
    series, log = chart["series"], chart["log_x"]
    form = lambda v: shown(v, chart["metric"])
    xs = [p[0] for one in series for p in one["points"]]
    ys = [v for one in series for p in one["points"] for v in p[1:] if v is not None]
    ys += [y for one in series for _, y in one["dots"]]
    if not xs:
        return Markup("")
    height = 220
    fx = scale_of(xs, log, _LEFT, _WIDTH - _RIGHT, pad=0.03)
    fy = scale_of(ys, False, height - _BOTTOM, _TOP, pad=0.08)
    body = []
    for tick in ticks_of(min(ys), max(ys), 4):
        y = fy(tick)
        body.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="rule"/>'
        )
        body.append(text_at(_LEFT - 6, y + 4, form(tick), "end"))
    last = -math.inf
    for tick in sorted(set(xs)) if log else ticks_of(min(xs), max(xs), 4):
        if fx(tick) - last >= 27:
            body.append(text_at(fx(tick), height - _BOTTOM + 15, number_text(tick), "middle"))
            last = fx(tick)
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    body.append(text_at(middle, height - 5, chart["x_title"], "middle", "axis"))
    for place, one in enumerate(series):
        body += _curve(one, place, fx, fy, form)
    return frame(chart["title"], body, height) + legend([Series(s["name"], ()) for s in series])


def _curve(
    one: Mapping[str, Any],
    place: int,
    fx: Callable[[float], float],
    fy: Callable[[float], float],
    form: Callable[[float], str],
) -> list[str]:
    points, ink, body = one["points"], color(place), []
    band = [(x, low, high) for x, _, low, high in points if low is not None and high is not None]
    if len(band) > 1:
        there = [f"{fx(x):.1f} {fy(high):.1f}" for x, _, high in band]
        back = [f"{fx(x):.1f} {fy(low):.1f}" for x, low, _ in reversed(band)]
        body.append(f'<path d="M{" L".join(there + back)}Z" fill="{ink}" opacity=".15"/>')
    path = " L".join(f"{fx(x):.1f} {fy(y):.1f}" for x, y, *_ in points)
    stroke = Series(one["name"], ()).stroke(place)
    body.append(f'<path d="M{path}" fill="none" {stroke} stroke-width="2"/>')
    for x, y in one["dots"]:
        body.append(
            f'<circle cx="{fx(x):.1f}" cy="{fy(y):.1f}" r="1.8" fill="{ink}" opacity=".7"/>'
        )
    for x, y, low, high in points:
        said = "" if low is None or high is None else f", 95% interval {form(low)} to {form(high)}"
        tip = escape(f"{one['name']} at {number_text(x)}: {form(y)}{said}")
        body.append(
            f'<circle cx="{fx(x):.1f}" cy="{fy(y):.1f}" r="3.2" fill="{ink}"><title>{tip}</title>'
            "</circle>"
        )
    return body


def _axis_below(
    fx: Callable[[float], float],
    values: Sequence[float],
    bottom: float,
    form: Callable[[float], str],
) -> list[str]:
    """Vertical rules with their numbers; one that would touch the last is left out."""
    body, last = [], -math.inf
    for tick in ticks_of(min(values), max(values), 4):
        x = fx(tick)
        body.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 4}" y2="{bottom}" class="rule"/>')
        if x - last >= 44:
            body.append(text_at(x, bottom + 15, form(tick), "middle"))
            last = x
    return body


def _percent(value: float) -> str:
    return f"{value:+.0%}" if abs(value) >= 0.1 else f"{value:+.1%}" if value else "0"


def _signed(value: float, name: str) -> str:
    return signed(value, name) if value else "0"


def standalone(charts: Sequence[Mapping[str, Any]], title: str = "") -> str:
    """The charts as one SVG file, three in a row, in the light colors of the page; "" for none."""
    drawn = [one for one in map(_cut, charts) if one is not None]
    if not drawn:
        return ""
    parts, y = [], 24.0 if title else 0.0
    for start in range(0, len(drawn), _ROW):
        row = drawn[start : start + _ROW]
        for place, (inner, _) in enumerate(row):
            parts.append(f'<g transform="translate({place * _STEP} {y:.0f})">{inner}</g>')
        y += max(height for _, height in row) + 12
    wide = _STEP * min(len(drawn), _ROW) - (_STEP - _WIDTH)
    body = "".join(parts)
    for name, value in _PAPER.items():
        body = body.replace(f"var({name})", value)
    head = text_at(2, 14, title, "start", "title") if title else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-8 -8 {wide + 16} {y + 8:.0f}" '
        f'width="{wide + 16}" height="{y + 8:.0f}"><style>{_STYLE}</style>'
        f'<rect x="-8" y="-8" width="100%" height="100%" fill="#fff"/>{head}{body}</svg>\n'
    )


def _cut(chart: Mapping[str, Any]) -> tuple[str, float] | None:
    """(inside of a chart's SVG with its names and text below, height); None for an empty one."""
    found = re.match(r'<svg viewBox="0 0 \d+ (\d+)"[^>]*>(.*?)</svg>', str(draw(chart)), re.DOTALL)
    if found is None:
        return None
    inner, height = found[2], float(found[1])
    series = chart.get("series") or ()
    for place, one in enumerate(series if len(series) > 1 else ()):
        height += 16
        stroke = Series(one["name"], ()).stroke(place)
        inner += f'<path d="M8 {height - 4:.0f}h20" {stroke} stroke-width="3"/>'
        inner += text_at(34, height, one["name"], "start")
    if chart.get("text"):
        height += 16
        inner += text_at(8, height, chart["text"], "start")
    return inner, height
