"""Tables for other programs: report.tex (rows of booktabs tables) and report.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from vistok.eval.report.comparison import Cell, Comparison, comparison
from vistok.eval.report.escape import csv_text, tex
from vistok.eval.report.tables import Table, tables
from vistok.eval.results.rows import Results
from vistok.eval.results.text import FEW_MEANS, few_reasons


def latex(results: Results) -> str:
    """The comparison and each run's lengths; needs \\usepackage{booktabs}."""
    parts = [
        "% Made by vistok eval. Needs \\usepackage{booktabs}. Best values are bold; a number",
        "% marked $\\neq$ has another protocol than the first of its column. Two numbers compare",
        "% only when network, images, count and sampling settings agree: see the JSON file beside.",
        "",
        _comparison_tex(comparison(results)),
    ]
    parts += [_lengths_tex(table) for table in tables(results) if table.lines]
    reasons = few_reasons(results.rows)
    if reasons:
        said = tex("; ".join([FEW_MEANS, *reasons]))
        parts.append(rf"\par{{\footnotesize {said}.}}" + "\n")
    return "\n".join(parts)


def comparison_csv(results: Results) -> str:
    """The comparison: one line a run, full precision; empty where nothing was measured.

    The last two columns name the numbers that do not compare with their column's first, and those
    that rest on few images, each with the reason.
    """
    table = comparison(results)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = [column.name for column in table.columns]
    last = ["protocol differs in", "few images"]
    writer.writerow(map(csv_text, ["run", "generator", *names, *table.facts, *last]))
    for entry in table.entries:
        values = ["" if c.value is None else repr(c.value) for c in entry.cells]
        few = [f"{n}: {c.few}" for n, c in zip(names, entry.cells, strict=True) if c.few]
        notes = ("; ".join(entry.differs), "; ".join(few))
        texts = [csv_text(text) for text in (entry.run, entry.generator, *entry.facts, *notes)]
        writer.writerow([*texts[:2], *values, *texts[2:]])
    return file.getvalue()


def _comparison_tex(table: Comparison) -> str:
    arrows = {"higher": r" $\uparrow$", "lower": r" $\downarrow$", "": ""}
    header = ["run", *(tex(column.name) + arrows[column.better] for column in table.columns)]
    header += map(tex, table.facts)
    body = [
        [tex(entry.name), *map(_cell_tex, entry.cells), *map(tex, entry.facts)]
        for entry in table.entries
    ]
    return _tabular("All runs at full length", header, body)


def _cell_tex(cell: Cell) -> str:
    text = tex(cell.text) or "--"
    text = rf"\textbf{{{text}}}" if cell.best else text
    return text + (r"$^{\neq}$" if cell.differs else "")


def _lengths_tex(table: Table) -> str:
    header = [tex(f"{table.run} ({table.kind})"), *(f"@{length}" for length in table.lengths)]
    body = [[tex(line.name), *(tex(c) or "--" for c in line.cells)] for line in table.lines]
    return _tabular(f"{table.run}: every metric at every kept length", header, body)


def _tabular(title: str, header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    line = lambda cells: " & ".join(cells) + r" \\"
    return "\n".join(
        [
            f"% {tex(title)}",
            rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            r"\toprule",
            line(header),
            r"\midrule",
            *map(line, body),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )
