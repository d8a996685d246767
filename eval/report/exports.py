"""Tables for other programs: report.tex (booktabs tables that fit a page) and report.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from vistok.eval.report.comparison import Cell, Column, Comparison, comparison
from vistok.eval.report.escape import csv_text, tex
from vistok.eval.report.naming import Naming
from vistok.eval.report.tables import Table, tables
from vistok.eval.results.metrics import ranked
from vistok.eval.results.rows import Results
from vistok.eval.results.text import (
    BELOW,
    BELOW_MEANS,
    FEW_MEANS,
    below_reasons,
    few_reasons,
    spread_means,
)

_WIDE = 84  # characters of a line that fit the text width of a page in \small, about
_TALL = 40  # lines of a table that fit a page
_UP, _DOWN = r" $\uparrow$", r" $\downarrow$"


def latex(results: Results) -> str:
    """The comparison and each run's lengths, as tables that fit a page; needs booktabs.

    The comparison has the metrics of `columns`, of the evaluation's config; without them the
    headline metrics as far as a line of text goes. Whole names stand in comments and the CSV.
    """
    chosen = columns_of(results)
    naming = Naming(results.rows)
    parts = [
        "% Made by vistok eval. Needs \\usepackage{booktabs}, and where a table is wider than the",
        "% text \\usepackage{graphicx}. Best values are bold; a number",
        "% marked $\\neq$ has another protocol than the first of its column. Two numbers compare",
        "% only when network, images, count and sampling settings agree: see the JSON file beside.",
        "",
    ]
    said = " ".join(naming.legend())
    parts += _comparison_tex(comparison(results), chosen, said)
    parts += [_lengths_tex(table, said) for table in tables(results) if table.lines]
    reasons = few_reasons(results.rows)
    if reasons:
        said = tex("; ".join([FEW_MEANS, *reasons]))
        parts.append(rf"\par{{\footnotesize {said}.}}" + "\n")
    below, means = below_reasons(results.rows), spread_means(r for r in results.rows if r.plain)
    for notes in ([BELOW_MEANS, *below] if below else [], means):
        if notes:
            said = tex(("; " if notes[0] == BELOW_MEANS else " ").join(notes)).rstrip(".")
            parts.append(rf"\par{{\footnotesize {said}.}}" + "\n")
    return "\n".join(parts)


def columns_of(results: Results) -> tuple[str, ...]:
    """The metrics that the user chose for the table, in their order; () = none were chosen."""
    return tuple((results.facts.get("config") or {}).get("columns") or ())


def comparison_csv(results: Results) -> str:
    """The comparison: one line a run, full precision; empty where nothing was measured.

    A column of numbers is followed by those of the ends of their 95 % intervals and of their
    floors, where it has some. The last three columns name the numbers that do not compare with
    their column's first, those that rest on few images, each with the reason, and those below
    their floor.
    """
    table = comparison(results)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = [column.name for column in table.columns]
    last = ["protocol differs in", "few images", "below floor"]
    parts = [_csv_parts(table, place) for place in range(len(names))]
    heads = [
        head
        for name, own in zip(names, parts, strict=True)
        for head in (name, *(f"{name} {part}" for part in own))
    ]
    writer.writerow(map(csv_text, ["run", "generator", *heads, *table.facts, *last]))
    for entry in table.entries:
        values = [
            "" if value is None else repr(value)
            for cell, own in zip(entry.cells, parts, strict=True)
            for value in (cell.value, *(_CSV_PARTS[part](cell) for part in own))
        ]
        few = [f"{n}: {c.few}" for n, c in zip(names, entry.cells, strict=True) if c.few]
        below = [n for n, c in zip(names, entry.cells, strict=True) if BELOW in c.text]
        notes = ("; ".join(entry.differs), "; ".join(few), "; ".join(below))
        texts = [csv_text(text) for text in (entry.run, entry.generator, *entry.facts, *notes)]
        writer.writerow([*texts[:2], *values, *texts[2:]])
    return file.getvalue()


_CSV_PARTS = {
    "95% low": lambda cell: None if cell.interval is None else cell.interval[0],
    "95% high": lambda cell: None if cell.interval is None else cell.interval[1],
    "floor": lambda cell: cell.floor,
}


def _csv_parts(table: Comparison, place: int) -> list[str]:
    """Further columns of a column of numbers: those of which some cell has a value."""
    cells = [entry.cells[place] for entry in table.entries]
    has = lambda value: any(value(cell) is not None for cell in cells)
    return [part for part, value in _CSV_PARTS.items() if has(value)]


def _comparison_tex(table: Comparison, chosen: Sequence[str], said: str) -> Iterator[str]:
    """The table of all runs in pieces that fit a page each."""
    shown = _chosen(table, chosen) if chosen else _fitting(table)
    names = [table.columns[place].name for place in shown]
    yield "% Columns: " + "; ".join(map(tex, names))
    left = [column.name for i, column in enumerate(table.columns) if i not in shown]
    if left:
        yield "% Left out (columns=[...] chooses; report.csv has all): " + tex("; ".join(left))
    header = ["run", "tokens", *(_head(table.columns[place]) for place in shown)]
    body = [
        [tex(entry.name), tex(entry.facts[0]), *(_cell_tex(entry.cells[place]) for place in shown)]
        for entry in table.entries
    ]
    foot = []
    if any(table.columns[place].floor for place in shown):
        floors = [tex(table.columns[place].floor) or "--" for place in shown]
        foot = [["floor", "", *floors]]
    wide = _width(table, shown) > _WIDE
    for start in range(0, max(1, len(body)), _TALL):
        more = " (continued)" if start else ""
        title = f"All runs at full length{more}. {said}"
        yield _tabular(title, header, body[start : start + _TALL], wide, foot)


def _chosen(table: Comparison, chosen: Sequence[str]) -> list[int]:
    """Places of the columns of the chosen metrics, in the order of the choice."""
    return [
        place for name in chosen for place, one in enumerate(table.columns) if one.metric == name
    ]


def _fitting(table: Comparison) -> list[int]:
    """Places of as many columns as a line of text holds, headline metrics first; in their order."""
    first = {name: rank for rank, name in enumerate(ranked("tile"))}
    by_rank = sorted(
        range(len(table.columns)),
        key=lambda place: (first.get(table.columns[place].metric, len(first)), place),
    )
    kept: list[int] = []
    for place in by_rank:
        if table.columns[place].metric in first and _width(table, [*kept, place]) <= _WIDE:
            kept.append(place)
    return sorted(kept or by_rank[:1])


def _width(table: Comparison, shown: Sequence[int]) -> int:
    """Characters of the table's widest line, about."""
    longest = max([3, *(len(entry.name) for entry in table.entries)]) + 8
    for place in shown:
        head = table.columns[place]
        cells = max([0, *(len(entry.cells[place].whole) for entry in table.entries)])
        longest += max(len(head.title), len(head.inside), cells) + 3
    return longest


def _head(column: Column) -> str:
    arrow = {"higher": _UP, "lower": _DOWN, "": ""}[column.better]
    title = tex(column.title) + arrow
    if not column.inside:
        return title
    return rf"\shortstack[r]{{{title} \\ {{\footnotesize {tex(column.inside)}}}}}"


def _cell_tex(cell: Cell) -> str:
    text = tex(cell.text) or "--"
    text = rf"\textbf{{{text}}}" if cell.best else text
    text += _spread_tex(cell.spread)
    return text + (r"$^{\neq}$" if cell.differs else "")


def _spread_tex(spread: str) -> str:
    return rf" {{\scriptsize {tex(spread)}}}" if spread else ""


def _lengths_tex(table: Table, said: str) -> str:
    arrow = lambda better: {"higher": _UP, "lower": _DOWN, "": ""}[better]
    header = [tex(f"{table.run} ({table.kind})"), *(f"@{length}" for length in table.lengths)]
    body = [
        [
            tex(line.short.text) + arrow(line.better),
            *(
                (tex(cell) or "--") + _spread_tex(spread)
                for cell, spread in zip(line.cells, line.spreads, strict=True)
            ),
        ]
        for line in table.lines
    ]
    longest = max(len(header[0]), *(len(row[0]) for row in body))
    wide = (
        longest + sum(3 + max(map(len, column)) for column in zip(*body, strict=True)) > 2 * _WIDE
    )
    return _tabular(f"{table.run}: every metric at every kept length. {said}", header, body, wide)


def _tabular(
    title: str,
    header: Sequence[str],
    body: Sequence[Sequence[str]],
    wide: bool = False,
    foot: Sequence[Sequence[str]] = (),
) -> str:
    """A floating table; a `wide` one is scaled to the width of the text. `foot`: lines under a
    rule."""
    line = lambda cells: " & ".join(cells) + r" \\"
    inner = [
        rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
        r"\toprule",
        line(header),
        r"\midrule",
        *map(line, body),
        *([r"\midrule", *map(line, foot)] if foot else []),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    if wide:  # graphicx
        inner = [r"\resizebox{\textwidth}{!}{%", *inner[:-1], r"\end{tabular}}"]
    return "\n".join(
        [
            r"\begin{table}[t]",
            r"\centering\small",
            rf"\caption{{{tex(title)}}}",
            *inner,
            r"\end{table}",
            "",
        ]
    )
