"""Rows -> tables: metric by length for each run, as text for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vistok.eval.report import escape
from vistok.eval.report.naming import Name, Naming
from vistok.eval.results.metrics import metric as metric_of
from vistok.eval.results.metrics import order
from vistok.eval.results.rows import Results, Row
from vistok.eval.results.text import FEW_MEANS, few, few_reasons, value_text


@dataclass(frozen=True)
class Line:
    """One line of a run's table."""

    metric: str
    name: str  # whole: with network and data; guidance where it matters
    short: Name  # on a page
    better: str
    cells: tuple[str, ...]  # one for each column; "" where nothing was measured
    values: tuple[float | None, ...]
    few: tuple[str, ...]  # reason for each column why it rests on few images; "" = it does not
    counts: tuple[int, ...]  # images behind it


@dataclass(frozen=True)
class Table:
    run: str
    kind: str
    lengths: tuple[int, ...]  # the longest first
    lines: tuple[Line, ...]  # a cell for each length
    whole: tuple[Line, ...]  # one cell


def tables(results: Results) -> list[Table]:
    """One table for each run, tokenizers followed by their generators."""
    rows = by_run(row for row in results.rows if row.plain)
    naming = Naming(results.rows)
    return [_table(rows.get(run["name"], []), run, naming) for run in results.runs]


def by_run(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """{run: its rows}, in order."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.run, []).append(row)
    return found


def _table(rows: list[Row], run: dict[str, Any], naming: Naming) -> Table:
    found = {row.length for row in rows if row.length is not None}
    lengths = tuple(sorted(found, reverse=True))
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault((row.metric, row.display, row.clip, row.guidance), []).append(row)
    ordered = sorted(groups.items(), key=lambda item: order(item[0][0]))
    one_value = lambda key: metric_of(key[0]).table == "whole"
    lines = [_line(key, own, lengths, naming) for key, own in ordered if not one_value(key)]
    whole = [_line(key, own, None, naming) for key, own in ordered if one_value(key)]
    return Table(run["name"], run["kind"], lengths, tuple(lines), tuple(whole))


def _line(key: tuple, rows: list[Row], lengths: tuple[int, ...] | None, naming: Naming) -> Line:
    metric = key[0]
    if lengths is None:
        found = (rows[0],)
    else:
        at = {row.length: row for row in rows}
        found = tuple(at.get(length) for length in lengths)
    short = naming.of(rows[0])
    return Line(
        metric,
        short.whole,
        short,
        metric_of(metric).better,
        tuple("" if row is None else value_text(row) for row in found),
        tuple(None if row is None else row.value for row in found),
        tuple("" if row is None else few(row) for row in found),
        tuple(0 if row is None else row.count for row in found),
    )


def plain(header: list[str], body: list[list[str]]) -> str:
    """Columns aligned by spaces, numbers to the right; no control character reaches a terminal."""
    header, *body = [[escape.printable(cell) for cell in row] for row in (header, *body)]
    widths = [max(len(row[i]) for row in (header, *body)) for i in range(len(header))]
    fit = lambda row: "  ".join(
        cell.ljust(width) if i == 0 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ).rstrip()
    return "\n".join([fit(header), "-" * (sum(widths) + 2 * len(widths) - 2), *map(fit, body)])


def markdown(header: list[str], body: list[list[str]]) -> str:
    """A Markdown table; cells are escaped."""
    line = lambda row: "| " + " | ".join(map(escape.markdown, row)) + " |"
    rule = "|" + "|".join([" --- "] + [" ---: "] * (len(header) - 1)) + "|"
    return "\n".join([line(header), rule, *map(line, body)])


def length_table(table: Table) -> tuple[list[str], list[list[str]]]:
    header = [f"{table.run} ({table.kind})", *[f"@{length}" for length in table.lengths]]
    return header, [[line.name, *line.cells] for line in table.lines]


def special_tables(results: Results) -> list[tuple[list[str], list[list[str]]]]:
    """(header, body) of damage, codecs and probes: a line each, a column for each number."""
    kinds = {
        "damage": lambda p, row: f"{row.run} {p['damage']} {p['share']:.1%}",
        "codec": lambda p, row: _coded(row),
        "tap": lambda p, row: f"{row.run} {p['tap']}",
        "group": lambda p, row: f"{row.run} @{row.length} {p['group']}",
    }
    made = []
    clips = any(row.clip is not None for row in results.rows if "codec" in row.point)
    coded = "bytes per clip" if clips else "bytes per image"
    titles = {"damage": "damage", "codec": coded, "tap": "linear probe", "group": "relative size"}
    for kind, label_of in kinds.items():
        lines: dict[str, dict[str, str]] = {}
        columns: dict[str, None] = {}
        for row in results.rows:
            if kind in row.point:
                label = label_of(row.point, row)
                lines.setdefault(label, {})[row.display] = value_text(row)
                columns[row.display] = None
        if lines:
            body = [[label, *[own.get(c, "") for c in columns]] for label, own in lines.items()]
            made.append(([titles[kind], *columns], body))
    return made


def _coded(row: Row) -> str:
    length = "" if row.length is None else f" @{row.length}"
    codec = row.point["codec"]
    name = codec if row.run == codec else f"{row.run}{length} {codec}"
    return f"{name} {row.measured['bytes']:.1f}"


def summary(results: Results) -> str:
    """Text that the command line prints at the end."""
    blocks = []
    for table in tables(results):
        if table.lines or not table.whole:
            blocks.append(plain(*length_table(table)))
        if table.whole:
            body = [[line.name, *line.cells] for line in table.whole]
            blocks.append(plain([f"{table.run}, whole set", ""], body))
    blocks += [plain(*table) for table in special_tables(results)]
    reasons = few_reasons(results.rows)
    if reasons:
        blocks.append("\n".join(map(escape.printable, [FEW_MEANS, *(f"  {r}" for r in reasons)])))
    for one in results.facts.get("skipped", ()):
        said = f"not measured: {one['protocol']} of {one['run']}: {one['reason']}"
        blocks.append(escape.printable(said))
    return "\n\n".join(blocks)
