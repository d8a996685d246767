"""Charts that hold all runs: over kept length, bytes and damage; tokenizers against generators.

One chart holds one number: the same metric, network and images. A line whose protocol differs
from the chart's first says in what.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from vistok.eval.report.comparison import places
from vistok.eval.report.correlation import CLAIM, Correlation, correlations
from vistok.eval.report.figures import BASE, Point, Series, legend, line_chart, scatter
from vistok.eval.report.naming import Naming
from vistok.eval.results.compare import differences
from vistok.eval.results.metrics import ranked, shown
from vistok.eval.results.rows import Results, Row
from vistok.eval.results.text import mark, scale_text

_BASELINES = ("JPEG", "WebP", "AVIF")
_PLAIN = ("packed", "fixed")  # ways to write tokens; the first that is there needs no name


@dataclass(frozen=True)
class Relation:
    """A scatter plot of tokenizers and a line of text with its coefficients."""

    chart: Markup
    title: str
    text: str
    n: int
    claim: bool  # enough points to conclude anything


def length_charts(results: Results, over: str) -> list[Markup]:
    """Each metric over kept `tokens` or `bits`, one line a run, if there are two lengths; over
    bits only where these are no fixed multiple of the tokens, which would draw all charts twice."""
    at = _axis(results, over)
    if over == "bits" and not _bits_differ(results):
        return []
    charts, naming = [], Naming(results.rows)
    for metric in ranked("curve"):
        rows = [r for r in results.find(metric) if r.plain and (r.run, r.length) in at]
        for group in _by_display(_one_guidance(rows)):
            lines = _lines(results, group, lambda row: at[row.run, row.length])
            ticks = sorted({x for line in lines for x, _ in line.points})
            if len(ticks) < 2:
                continue
            lines += _floors(results, ticks, group)
            name = naming.of(group[0], guided=False)
            charts.append(
                line_chart(
                    f"{name.text}{mark(*group)} {name.arrow}".strip(),
                    lines,
                    log_x=True,
                    x_ticks=ticks if over == "tokens" else None,
                    x_title=f"kept {over}",
                    form=lambda v, m=metric: shown(v, m),
                    tip=name.whole,
                    named=_alike(lines),
                )
            )
    return charts


def rate_charts(results: Results) -> list[Markup]:
    """Each metric over bytes per sample: tokenizers at their lengths, image codecs dashed."""
    rows = [r for r in results.rows if r.measured.get("bytes") and r.value is not None]
    rows = [r for r in rows if "codec" in r.point]
    naming = Naming(results.rows)
    codec_of = lambda row: row.point["codec"]
    colors, charts = places(results), []
    ways = [codec for codec in dict.fromkeys(map(codec_of, rows)) if codec not in _BASELINES]
    plain = next((codec for codec in _PLAIN if codec in ways), _PLAIN[0])
    ways = [plain, *(codec for codec in ways if codec != plain)]  # each its own dashes
    for group in _by_display(rows):
        lines = []
        for (run, codec), own in _grouped(group, lambda r: (r.run, codec_of(r))).items():
            base = codec in _BASELINES
            name = codec if base else run if codec == plain else f"{run}, {codec}"
            turn = _BASELINES.index(codec) + 1 if base else ways.index(codec)
            points = tuple(sorted({(row.measured["bytes"], row.value) for row in own}))
            place = BASE if base else colors.get(run, 0)
            apart = _mark(group[0], own[0])
            lines.append(Series(name, points, place=place, dash=turn or None, remark=apart))
        metric, named = group[0].metric, naming.of(group[0], guided=False)
        charts.append(
            line_chart(
                f"{named.text}{mark(*group)} {named.arrow}".strip(),
                sorted(lines, key=lambda line: line.place == BASE),
                log_x=True,
                x_title=f"bytes per {'image' if group[0].clip is None else 'clip'}",
                form=lambda v, m=metric: shown(v, m),
                tip=named.whole,
            )
        )
    return charts


def damage_charts(results: Results) -> list[Markup]:
    """Each metric over the share of bits flipped or of positions lost."""
    charts, naming = [], Naming(results.rows)
    titles = {
        "bit_flip": "bits flipped",
        "drop_tail": "positions lost at the tail",
        "drop_head": "positions lost at the head",
    }
    rows = [r for r in results.rows if "damage" in r.point and r.value is not None]
    for kind, of_kind in _grouped(rows, lambda r: r.point["damage"]).items():
        for group in _by_display(of_kind):
            metric, named = group[0].metric, naming.of(group[0], guided=False)
            whole = [_undamaged(results, run) for run in {r.run: r for r in group}.values()]
            if not any(row.point["share"] == 0 for row in group):
                group = [*group, *(row for row in whole if row is not None)]
            share = lambda row: row.point.get("share", 0.0)
            lines = _lines(results, group, share)
            charts.append(
                line_chart(
                    f"{named.text}{mark(*group)} {named.arrow}".strip(),
                    lines,
                    x_title=f"share of {titles.get(kind, kind)}",
                    form=lambda v, m=metric: shown(v, m),
                    tip=named.whole,
                    named=_alike(lines),
                )
            )
    return charts


def relations(results: Results) -> list[Relation]:
    """gFID against rFID and pFID, with Spearman's and Pearson's coefficients."""
    return [_relation(one, places(results)) for one in correlations(results)]


def _relation(one: Correlation, colors: dict[str, int]) -> Relation:
    guidance = "" if one.guidance is None else f" guidance {scale_text(one.guidance)}"
    recipe = f", {one.recipe}" if one.recipe else ""
    points = [Point(name, x, y, colors.get(name, 0)) for name, x, y in one.points]
    chart = scatter(
        f"{one.x} and {one.y}", points, x_title=one.x_title, y_title=f"{one.y_title}{guidance}"
    )
    said = [f"n = {one.n}"]
    for name, value, p in (
        ("Spearman", one.spearman, one.spearman_p),
        ("Pearson", one.pearson, one.pearson_p),
    ):
        small = p is None or one.n < CLAIM  # a p-value would be read as a claim
        chance = "" if small else f" (p {p:.2g})" if p >= 1e-3 else " (p < 0.001)"
        said.append(f"{name} undefined" if value is None else f"{name} {value:+.2f}{chance}")
    if one.n < CLAIM:
        said.append(f"too few tokenizers for any claim (fewer than {CLAIM})")
    if one.left_out:
        said.append(f"left out, not finite: {', '.join(one.left_out)}")
    title = f"{one.x_title} and {one.y_title}{guidance}{recipe}"
    return Relation(chart, title, "; ".join(said), one.n, one.n >= CLAIM)


def run_legend(results: Results) -> Markup:
    """The runs in their colors: one legend for all charts that hold them."""
    pairs = results.facts.get("pairs") or {}
    owned = {generator for names in pairs.values() for generator in names}
    names = [name for name in places(results) if name not in owned]
    return legend([Series(name, (), place=places(results)[name]) for name in names])


def _bits_differ(results: Results) -> bool:
    """True if some run stores another number of bits in a token than others do."""
    kept = [one for run in results.runs for one in (run.get("lengths") or {}).values()]
    return len({k["bits"] / k["tokens"] for k in kept if k.get("bits") and k.get("tokens")}) > 1


def _axis(results: Results, over: str) -> dict[tuple[str, int | None], float]:
    """{(run, length): kept tokens or bits}, for the lengths of which the run's facts say so."""
    found: dict[tuple[str, int | None], float] = {}
    for run in results.runs:
        for length, kept in (run.get("lengths") or {}).items():
            if kept.get(over):
                found[run["name"], int(length)] = float(kept[over])
    return found


def _lines(results: Results, rows: list[Row], x: Any) -> list[Series]:
    """One line a run, in the runs' order and colors."""
    colors = places(results)
    lines, seen = [], []
    for run, own in _grouped(rows, lambda row: row.run).items():
        points = tuple(sorted((float(x(row)), row.value) for row in own if row.value is not None))
        if points:
            apart = _mark(rows[0], own[0])
            place = colors.get(run, 0)
            dash = seen.count(place) or None
            seen.append(place)
            bars = tuple((float(x(row)), *_reach(row)) for row in own if _reach(row))
            lines.append(Series(run, points, place=place, dash=dash, remark=apart, bars=bars))
    return lines


def _reach(row: Row) -> tuple[float, float] | None:
    """The ends of a number's bar: its range over seeds, else its interval."""
    return row.interval if row.range is None else row.range


def _alike(lines: list[Series]) -> bool:
    """True if two lines have one color (generators of one tokenizer), so that the legend of runs
    does not tell them apart."""
    return len({line.place for line in lines}) < len(lines)


def _mark(first: Row, row: Row) -> str:
    """Text that a legend adds to a line that does not compare with the chart's first."""
    apart = [field for field in differences(first, row) if not field.startswith("point.")]
    return f" (≠ {', '.join(apart)})" if apart else ""


def _floors(results: Results, ticks: list[float], rows: list[Row]) -> list[Series]:
    """The floor of the chart's numbers, dashed: what real images have, of PSNR the mean colors."""
    name = "real images"
    values = [row.floor.value for row in rows if row.floor is not None]
    if rows[0].metric == "PSNR":
        colors, name = results.find("PSNR-mean-color"), "mean color"
        colors = [row for row in colors if row.reference == rows[0].reference]
        values = [row.value for row in colors if row.value is not None]
    return [
        Series(name, ((ticks[0], v), (ticks[-1], v)), dots=False, dashed=True, place=BASE)
        for v in dict.fromkeys(values)
    ]


def _undamaged(results: Results, damaged: Row) -> Row | None:
    """The row of the same metric from undamaged tokens."""
    for row in results.find(damaged.metric, damaged.run, length=damaged.length):
        free = ("point.", "setting.", "seed")
        if row.plain and all(name.startswith(free) for name in differences(row, damaged)):
            return row
    return None


def _one_guidance(rows: list[Row]) -> list[Row]:
    """Rows at one guidance: without any where that was measured, else at that of most rows."""
    scales = [row.guidance for row in rows]
    if 1.0 in scales:
        return [row for row in rows if row.guidance == 1.0]
    most = max(dict.fromkeys(scales), key=scales.count, default=None)
    return [row for row in rows if row.guidance == most]


def _by_display(rows: Iterable[Row]) -> list[list[Row]]:
    return list(_grouped(rows, lambda row: (row.display, row.clip)).values())


def _grouped(rows: Iterable[Row], key: Any) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups
