"""Results -> one self-contained report.html; report.md, .tex, .csv and results.json beside it.

Nothing is computed here that is not in the rows but correlations over them. Any results.json can be
shown again: `write_report(Results.load(path), target)`. All text goes through jinja2's autoescape;
styles, scripts, charts and images are inline, so the page loads nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from vistok.eval.report import (
    curves,
    escape,
    exports,
    files,
    page_size,
    run_charts,
    stages,
    summary,
)
from vistok.eval.report.comparison import comparison, places
from vistok.eval.report.image_viewer import checked, shown_side, viewers
from vistok.eval.report.tables import length_table, markdown, tables
from vistok.eval.results.rows import Results
from vistok.eval.results.text import scale_text

_TEMPLATES = Path(__file__).parent / "templates"
_TEXT = 6_000_000  # bytes of a page without images, beyond which parts are left out
_GRIDS = {
    "reconstructions": (
        "Reconstructions",
        "The first row is real; below it the same images, decoded by every run from fewer and "
        "fewer tokens. A run without so few tokens shows its shortest.",
    ),
    "perturbed": (
        "Perturbed tokens",
        "The same images with a share α of the tokens replaced by one of their δ nearest codes: "
        "what pFID measures. The maps hold the Fréchet distance of every cell.",
    ),
    "generated": (
        "Generated images",
        "Samples of the generator, one class a row: the first ones of those behind gFID, not "
        "chosen.",
    ),
}
_PARTS = {  # what may be left out of a page that is too long, first to last
    "rows": "the table of all rows",
    "training": "training curves",
    "configs": "resolved configs",
    "codebooks": "codebook histograms",
    "maps": "pFID maps",
    "tables": "each run's own table",
    "record": "the protocol of every distance",
    "exported": "links to the tables as files, which lie beside this page",
    "bits": "curves against bits",
    "damages": "curves under damage",
    "rates": "rate-distortion curves",
    "lengths": "curves over the kept length",
}


def write_report(results: Results, target: str | Path, overwrite: bool = False) -> list[Path]:
    """Write target (.html), and beside it .md, .tex, .csv and the numbers; the paths written.

    The numbers are results.json, or NAME.results.json where that belongs to another report.
    InputError if files lie there that are not an earlier version of this report, unless
    `overwrite`; see `files.place`.
    """
    target = Path(target)
    runs = set(map(files.run_key, results.runs))
    protocols = (results.facts.get("config") or {}).get("protocols")
    found = files.place(target, runs, protocols, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    numbers, tables = found.numbers.name, found.tables
    texts = {
        tables["md"]: render_markdown(results, target.name, numbers),
        tables["tex"]: exports.latex(results),
        tables["csv"]: exports.comparison_csv(results),
        target: render_html(results, target.stem, numbers),
    }
    files.write(found, results, texts)
    return [found.numbers, *texts]


def render_html(results: Results, stem: str = "report", numbers: str = files.NUMBERS) -> str:
    """The page, at most `page_size.LIMIT` bytes; `stem` names the files that its links save,
    `numbers` the file with all numbers."""
    image_grids = results.facts.get("image_grids", ())
    for grid in image_grids:
        for row in grid["rows"]:
            checked(row["uri"])
    left_out: list[str] = []
    drawn = _drawn(results, stem)
    size = len(_page(results, drawn, [], left_out, numbers).encode())
    for part, name in _PARTS.items():
        if size > _TEXT and drawn[part]:
            drawn[part] = type(drawn[part])()
            left_out.append(name)
            size = len(_page(results, drawn, [], left_out, numbers).encode())
    kept, taken = page_size.fit(image_grids, page_size.LIMIT - size - 10_000)
    return _page(results, drawn, kept, [*left_out, *taken], numbers)


def _drawn(results: Results, stem: str) -> dict[str, Any]:
    """Charts and tables, which do not depend on the images."""
    runs = results.runs
    several = len(places(results)) > 1
    books = results.facts.get("codebook", {}).items()
    training = [{"run": run["name"], "charts": run_charts.training_charts(run)} for run in runs]
    maps = [(run["name"], run_charts.heat_maps(results, run["name"])) for run in runs]
    orders = results.facts.get("order", {}).items()
    exported = {
        f"{stem}.csv": "data:text/csv;charset=utf-8," + quote(exports.comparison_csv(results)),
        f"{stem}.tex": "data:application/x-tex;charset=utf-8," + quote(exports.latex(results)),
    }
    return {
        "comparison": comparison(results),
        "stages": stages.table(results),
        "cards": summary.cards(results),
        "lengths": curves.length_charts(results, "tokens"),
        "bits": curves.length_charts(results, "bits") if several else [],
        "rates": curves.rate_charts(results),
        "damages": curves.damage_charts(results),
        "relations": curves.relations(results),
        "probes": summary.probes(results),
        "orders": [{"run": run, "charts": run_charts.order_charts(one)} for run, one in orders],
        "rows": [summary.detail(row) for row in results.rows],
        "training": [one for one in training if one["charts"]],
        "configs": [{"name": run["name"], "text": summary.config(run)} for run in runs],
        "codebooks": [
            {"run": run, "charts": run_charts.codebook_charts(one)} for run, one in books
        ],
        "maps": [{"run": run, "charts": found} for run, found in maps if found],
        "tables": tables(results),
        "record": summary.record(results),
        "exported": exported,
    }


def _page(
    results: Results,
    drawn: dict[str, Any],
    image_grids: Sequence[dict[str, Any]],
    left_out: Sequence[str],
    numbers: str,
) -> str:
    several = len(results.runs) > 1
    groups = _groups(image_grids, drawn, places(results), several)
    names = {
        "summary": "Summary",
        "stages": "Stages" if drawn["stages"] else "",
        "lengths": "Lengths" if drawn["lengths"] else "",
        "rates": "Rate" if drawn["rates"] else "",
        "relations": "Correlation" if drawn["relations"] else "",
        "damage": "Damage" if drawn["damages"] else "",
        "probe": "Probe" if drawn["probes"] else "",
        **{group["anchor"]: group["title"] for group in groups},
        "order": "Order" if drawn["orders"] else "",
        "codebook": "Codebook" if drawn["codebooks"] else "",
        "training": "Training" if drawn["training"] else "",
        "meanings": "Meaning",
        "protocol": "Protocol",
    }
    read = lambda name: Markup((_TEMPLATES / name).read_text(encoding="utf-8"))
    return (
        _environment(True)
        .get_template("report.html.j2")
        .render(
            **summary.common(results),
            **drawn,
            style=read("report.css"),
            script=read("report.js"),
            groups=groups,
            order_grids=[_grid(g, several) for g in image_grids if g["kind"] == "order"],
            left_out=left_out,
            numbers=numbers,
            sections=[(anchor, title) for anchor, title in names.items() if title],
        )
    )


def render_markdown(results: Results, html: str, numbers: str) -> str:
    """The same numbers as text."""
    blocks = _comparison_blocks(results)
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
        _environment(False)
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


def _groups(
    image_grids: Sequence[dict[str, Any]],
    drawn: dict[str, Any],
    colors: dict[str, int],
    several: bool,
) -> list[dict[str, Any]]:
    """The groups of images, in reading order; pFID's maps stand under its images."""
    groups = []
    for kind, (title, caption) in _GRIDS.items():
        slides = viewers(image_grids, kind, colors)
        grids = [g for g in image_grids if g["kind"] == kind] if not slides else []
        maps = drawn["maps"] if kind == "perturbed" else []
        if slides or grids or maps:
            groups.append(
                {
                    "anchor": kind,
                    "title": title,
                    "caption": caption,
                    "viewers": slides,
                    "grids": [_grid(g, several) for g in grids],
                    "maps": maps,
                }
            )
    return groups


def _grid(grid: dict[str, Any], several: bool) -> dict[str, Any]:
    width = grid["size"][1]
    heading = [grid["run"]] if several else []
    heading += [f"guidance {scale_text(grid['guidance'])}"] if "guidance" in grid else []
    pixels = shown_side(width)
    return {
        **grid,
        "note": grid.get("note", ""),
        "heading": ", ".join(heading),
        "cells": grid.get("cells") or len(grid["columns"]),
        "pixels": pixels,
        "small": pixels > width,
    }


def _environment(escape: bool) -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=escape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=not escape,
    )
    # A narrow page may break a number's name before its bracket.
    made.filters["breakable"] = lambda name: Markup("<wbr>[").join(name.split("["))
    return made


def _plain(value: Any) -> Any:
    """Values for Markdown: every text in them as plain text."""
    if isinstance(value, str):
        return escape.markdown(value)
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value
