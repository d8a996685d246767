"""Small charts as SVG text: they follow the page's theme, print sharply and need no library.

Colors are CSS variables of the page (--series-1 .. --series-8, --base, --ink, --rule), so the same
SVG serves light and dark. More lines than colors differ by their dashes. Every text is escaped
here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

_WIDTH, _HEIGHT = 340, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 26, 34
SERIES = 8
BASE = -1  # the place of what is no run: floors and codecs
_DASHES = ("", "6 4", "2 3", "9 3 2 3")
_LABEL = 5.6  # width of a character of a label, about
_APART = 27  # between the labels of an axis


@dataclass(frozen=True)
class Series:
    """One line: points in order of x."""

    name: str
    points: tuple[tuple[float, float], ...]
    dots: bool = True
    dashed: bool = False
    place: int | None = None  # color; None = its place in the chart
    dash: int | None = None  # which pattern; None = as the color's round says
    remark: str = ""  # what a legend adds to the name

    def stroke(self, place: int) -> str:
        """SVG attributes of its line, as the place-th of a chart."""
        own = self.place if self.place is not None else place
        turn = self.dash if self.dash is not None else max(0, own // SERIES)
        dash = _DASHES[1 if self.dashed and turn == 0 else turn % len(_DASHES)]
        return f'stroke="{color(own)}"' + (f' stroke-dasharray="{dash}"' if dash else "")


@dataclass(frozen=True)
class Point:
    """One named dot of a scatter plot."""

    name: str
    x: float
    y: float
    place: int = 0


def color(place: int) -> str:
    return "var(--base)" if place == BASE else f"var(--series-{place % SERIES + 1})"


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    log_x: bool = False,
    log_y: bool = False,
    x_title: str = "",
    x_ticks: Sequence[float] | None = None,
    form: Callable[[float], str] | None = None,
    tip: str = "",
    named: bool = True,
) -> Markup:
    """Lines over one x axis; points that are not finite (or not positive on a log axis) are left
    out of the line.

    Args:
        tip: tooltip of the title. named: False: the page has one legend for several charts, and
            only lines that are no run, or say more than their run's name, are named below it.
    """
    usable = lambda p: (
        all(map(math.isfinite, p)) and (not log_x or p[0] > 0) and (not log_y or p[1] > 0)
    )
    kept = [(s, [p for p in s.points if usable(p)]) for s in series]
    points = [p for _, own in kept for p in own]
    if not points:
        return Markup("")
    form = form or _number
    fx = _scale([p[0] for p in points], log_x, _LEFT, _WIDTH - _RIGHT, pad=0.03)
    fy = _scale([p[1] for p in points], log_y, _HEIGHT - _BOTTOM, _TOP, pad=0.08)
    body = [_y_axis(fy, [p[1] for p in points], log_y, form)]
    body += _x_axis(fx, [p[0] for p in points], log_x, x_ticks)
    if x_title:
        body.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 5, x_title, "middle", "axis"))
    for place, (one, own) in enumerate(kept):
        path = " ".join(
            f"{'M' if i == 0 else 'L'}{fx(x):.1f} {fy(y):.1f}" for i, (x, y) in enumerate(own)
        )
        stroke = one.stroke(place)
        if len(own) > 1:
            body.append(
                f'<path d="{path}" fill="none" {stroke} stroke-width="2" stroke-linejoin="round"/>'
            )
        fill = color(one.place if one.place is not None else place)
        for x, y in own if one.dots or len(own) == 1 else ():
            value = escape(f"{one.name} at {_number(x)}: {form(y)}")
            body.append(
                f'<circle cx="{fx(x):.1f}" cy="{fy(y):.1f}" r="{3.5 if len(kept) < 7 else 2.5}" '
                f'fill="{fill}"><title>{value}</title></circle>'
            )
    return _frame(title, body, tip=tip) + legend(series if named else _apart(series))


def _apart(series: Sequence[Series]) -> list[Series]:
    """Lines that a common legend does not have."""
    return [one for one in series if one.place == BASE or one.remark]


def scatter(title: str, points: Sequence[Point], *, x_title: str = "", y_title: str = "") -> Markup:
    """Named dots; a name that would cover another or a dot shows only when pointed at."""
    if not points:
        return Markup("")
    left, top = _LEFT + 6, _TOP + 14  # space for the name of the y axis
    fx = _scale([p.x for p in points], False, left, _WIDTH - _RIGHT, pad=0.08)
    fy = _scale([p.y for p in points], False, _HEIGHT - _BOTTOM, top, pad=0.08)
    body = [_y_axis(fy, [p.y for p in points], False, _number)]
    body += _x_axis(fx, [p.x for p in points], False, None)
    body.append(_text((left + _WIDTH - _RIGHT) / 2, _HEIGHT - 5, x_title, "middle", "axis"))
    body.append(_text(2, 29, y_title, "start", "axis"))
    at = [(fx(p.x), fy(p.y)) for p in points]
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in at]
    for point, (x, y) in zip(points, at, strict=True):
        tip = escape(f"{point.name}: {_number(point.x)}, {_number(point.y)}")
        body.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{color(point.place)}">'
            f"<title>{tip}</title></circle>"
        )
        wide = _LABEL * len(point.name)
        for anchor, dx, dy, start in (
            *(("start", 8, 4, 8.0), ("end", -8, 4, -8 - wide)),
            *(("middle", 0, -9, -wide / 2), ("middle", 0, 17, -wide / 2)),
        ):
            box = (x + start, y + dy - 9, x + start + wide, y + dy + 2)
            inside = box[0] >= left and box[2] <= _WIDTH and box[1] > top - 8
            inside = inside and box[3] < _HEIGHT - _BOTTOM
            if inside and not any(_meet(box, other) for other in taken):
                taken.append(box)
                body.append(_text(x + dx, y + dy, point.name, anchor, "tick"))
                break
    return _frame(title, body)


def _meet(a: Sequence[float], b: Sequence[float]) -> bool:
    """True if two boxes (left, top, right, bottom) overlap."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def legend(series: Sequence[Series]) -> Markup:
    """Names beside their lines; nothing for a single line that is a run's."""
    if len(series) < 2 and not _apart(series):
        return Markup("")
    keys = "".join(
        f'<span class="key"><svg viewBox="0 0 22 6"><path d="M0 3H22" {s.stroke(i)} '
        f'stroke-width="3"/></svg>{escape(s.name + s.remark)}</span>'
        for i, s in enumerate(series)
    )
    return Markup(f'<div class="legend">{keys}</div>')


def bar_chart(
    title: str,
    values: Sequence[float],
    *,
    x_title: str = "",
    first: int = 1,
    top: float | None = None,
    form: Callable[[float], str] | None = None,
) -> Markup:
    """One bar a value, numbered from `first`; `top` is the end of the y axis."""
    if not values:
        return Markup("")
    form = form or _number
    highest = max([*values, top or 0.0]) or 1.0
    fy = lambda y: _HEIGHT - _BOTTOM - (y / highest) * (_HEIGHT - _BOTTOM - _TOP)
    step = (_WIDTH - _RIGHT - _LEFT) / len(values)
    gap = min(2.0, step * 0.2)
    body = [_y_axis(fy, [0.0, highest], False, form)]
    for place, value in enumerate(values):
        x, y = _LEFT + place * step + gap / 2, fy(value)
        height = max(0.5, _HEIGHT - _BOTTOM - y)
        tip = escape(f"{first + place}: {form(value)}")
        body.append(
            f'<rect x="{x:.2f}" y="{y:.1f}" width="{step - gap:.2f}" height="{height:.1f}" '
            f'rx="{min(2.0, step / 4):.1f}" fill="var(--series-1)"><title>{tip}</title>'
            "</rect>"
        )
    every = max(1, math.ceil(len(values) / 8))
    for place in range(0, len(values), every):
        x = _LEFT + (place + 0.5) * step
        body.append(_text(x, _HEIGHT - _BOTTOM + 15, str(first + place), "middle"))
    if x_title:
        body.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 5, x_title, "middle", "axis"))
    return _frame(title, body)


def heat_map(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float]],
    *,
    row_title: str = "",
    column_title: str = "",
    form: Callable[[float], str] | None = None,
) -> Markup:
    """Numbers on a one-hue scale from the smallest (pale) to the largest (strong)."""
    form = form or _number
    flat = [value for row in values for value in row]
    if not flat:
        return Markup("")
    low, high = min(flat), max(flat)
    left, top, cell, tall = 62, 42, (_WIDTH - 62 - 8) / len(columns), 30
    body = []
    for i, row in enumerate(values):
        y = top + i * tall
        body.append(_text(left - 8, y + tall / 2 + 4, rows[i], "end"))
        for j, value in enumerate(row):
            share = 0.0 if high == low else (value - low) / (high - low)
            x, ink = left + j * cell, "dark" if share < 0.55 else "light"
            body.append(
                f'<rect x="{x + 1:.1f}" y="{y + 1:.1f}" width="{cell - 2:.1f}" '
                f'height="{tall - 2}" rx="3" fill="{_heat(share)}"/>'
                f'<text x="{x + cell / 2:.1f}" y="{y + tall / 2 + 4:.1f}" text-anchor="middle" '
                f'class="cell {ink}">{escape(form(value))}</text>'
            )
    for j, name in enumerate(columns):
        body.append(_text(left + (j + 0.5) * cell, top - 6, name, "middle"))
    body.append(_text(left - 8, top - 6, f"{row_title} \\ {column_title}", "end", "axis"))
    return _frame(title, body, top + tall * len(rows) + 8)


def _heat(share: float) -> str:
    """Pale to strong orange-red, the same in both themes (the cell's ink goes with it)."""
    pale, strong = (253, 226, 196), (166, 44, 30)
    mix = [round(a + (b - a) * share) for a, b in zip(pale, strong, strict=True)]
    return f"rgb({mix[0]},{mix[1]},{mix[2]})"


def _frame(title: str, body: Sequence[str], height: float = _HEIGHT, tip: str = "") -> Markup:
    name = escape(title)
    shown = Markup("{}<title>{}</title>").format(title, tip) if tip else name
    return Markup(
        f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{name}">'
        f'<text x="2" y="14" class="title">{shown}</text>{"".join(body)}</svg>'
    )


def _y_axis(fy: Callable, values: Sequence[float], log: bool, form: Callable) -> str:
    low, high = min(values), max(values)
    ticks = _log_ticks(low, high) if log else _ticks(low, high, 4)
    parts = []
    for tick in ticks:
        y = fy(tick)
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="rule"/>'
        )
        parts.append(_text(_LEFT - 6, y + 4, form(tick), "end"))
    return "".join(parts)


def _x_axis(
    fx: Callable, values: Sequence[float], log: bool, ticks: Sequence[float] | None
) -> list[str]:
    """Labels of the x axis; one that would touch the last is left out."""
    low, high = min(values), max(values)
    if ticks is None:
        ticks = _log_ticks(low, high) if log else _ticks(low, high, 4)
    parts, last = [], -math.inf
    for tick in ticks:
        x = fx(tick)
        if x - last >= _APART:
            parts.append(_text(x, _HEIGHT - _BOTTOM + 15, _number(tick), "middle"))
            last = x
    return parts


def _text(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(text)}</text>'
    )


def _scale(
    values: Sequence[float], log: bool, start: float, stop: float, pad: float
) -> Callable[[float], float]:
    """Data -> SVG units; `pad` is the share left free at both ends."""
    turn = math.log10 if log else float
    low, high = turn(min(values)), turn(max(values))
    if high == low:
        low, high = low - 0.5, high + 0.5
    low, high = low - pad * (high - low), high + pad * (high - low)
    return lambda v: start + (turn(v) - low) / (high - low) * (stop - start)


def _ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers inside low..high."""
    if high == low:
        return [low]
    rough = (high - low) / about
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for marks in ((1,), (1, 3), (1, 2, 5)):
        ticks = [m * 10.0**p for p in powers for m in marks if low <= m * 10.0**p <= high]
        if len(ticks) >= 3:
            return ticks
    return _ticks(low, high, 3)


def _number(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 1e4:
        short = f"{value / 1e6:g}M" if abs(value) >= 1e6 else f"{value / 1e3:g}k"
        return short
    return f"{value:.4g}"


# What charts in files of their own are drawn with.
frame, text_at, scale_of, ticks_of, number_text = _frame, _text, _scale, _ticks, _number
