"""Results -> report.md: the numbers of the page as text.

Names are whole here (with network and data). All text goes through `escape`, so that nothing in a
name becomes markup.
"""

from __future__ import annotations

from typing import Any

from vistok.eval.report import claims, curves, escape, stages, summary
from vistok.eval.report.comparison import comparison
from vistok.eval.report.config_differences import config_differences
from vistok.eval.report.tables import length_table, markdown, tables
from vistok.eval.report.templating import environment
from vistok.eval.results.rows import Results


def render_markdown(results: Results, html: str, numbers: str) -> str:
    """The same numbers as text."""
    blocks = claims.blocks(results)
    blocks += _comparison_blocks(results)
    blocks += _setting_blocks(results)
    blocks += _stage_blocks(results)
    for table in tables(results):
        blocks.append(markdown(*length_table(table)))
        if table.whole:
            body = [[line.name, *line.cells] for line in table.whole]
            blocks.append(markdown([f"{table.run}, whole set", ""], body))
    if found := curves.relations(results):
        body = [[one.title, one.text] for one in found]
        blocks.append(markdown(["tokenizers and generators", "correlation"], body))
    if probes := summary.probes(results):
        body = [[line["run"], *line["cells"]] for line in probes["lines"]]
        blocks.append(markdown(["linear probe", *map(" ".join, probes["columns"])], body))
    common = summary.common(results)
    text = (
        environment(False)
        .get_template("report.md.j2")
        .render(
            **_plain({**common, "html": html, "json": numbers}),
            blocks=blocks,
            spans=[escape.code(one) for one in common["commands"]],
        )
    )
    return text.strip() + "\n"


def _comparison_blocks(results: Results) -> list[str]:
    """The table of all runs, where there are several."""
    table = comparison(results)
    if len(table.entries) < 2:
        return []
    header = ["run", *(column.name for column in table.columns), *table.facts]
    mark = lambda c: c.text + (" (best)" if c.best else "") + (" ≠" if c.differs else "")
    body = [[entry.name, *map(mark, entry.cells), *entry.facts] for entry in table.entries]
    blocks = [markdown(header, body)]
    if table.mixed:
        fields = _plain(", ".join(table.mixed))
        blocks.append(f"≠: another protocol than the first number of the column: {fields}.")
    return blocks


def _setting_blocks(results: Results) -> list[str]:
    """The config keys in which runs differ."""
    blocks = []
    for table in config_differences(results):
        body = [
            [f"{row.before}{row.key}", *(value.text or "–" for value in row.values)]
            for row in table.rows
        ]
        if body:
            blocks.append(markdown([f"settings of {table.kind}s that differ", *table.runs], body))
    return blocks


def _stage_blocks(results: Results) -> list[str]:
    """The table of stages, where a tokenizer came from another."""
    table = stages.table(results)
    if table is None:
        return []
    header = ["stage", "made by", "seed", *("".join(column) for column in table["columns"])]
    cell = lambda value, moved: f"{value} ({moved})" if moved else value
    body = [
        [line["name"], line["kind"], line["seed"], *(cell(*one) for one in line["cells"])]
        for line in table["lines"]
    ]
    return [markdown(header, body), "In brackets: the difference from the stage before."]


def _plain(value: Any) -> Any:
    """Values for Markdown: every text in them as plain text."""
    if isinstance(value, str):
        return escape.markdown(value)
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value
