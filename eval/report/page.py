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

from markupsafe import Markup

from vistok.eval.report import (
    claims,
    curves,
    exports,
    files,
    page_size,
    run_charts,
    stages,
    summary,
)
from vistok.eval.report.comparison import comparison, places
from vistok.eval.report.config_differences import config_differences
from vistok.eval.report.image_viewer import checked, shown_side, viewers
from vistok.eval.report.markdown_page import render_markdown
from vistok.eval.report.naming import Naming
from vistok.eval.report.tables import tables
from vistok.eval.report.templating import TEMPLATES, environment
from vistok.eval.report.time_charts import time_charts
from vistok.eval.report.training_curves import training
from vistok.eval.results.rows import Results
from vistok.eval.results.text import scale_text

_TEXT = 6_000_000  # bytes of a page without images, beyond which parts are left out
_GRIDS = {
    "reconstructions": (
        "Reconstructions",
        "The same images, decoded by every run from its tokens and from prefixes of them. A run "
        "without so short a prefix shows its shortest.",
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
_CLIPS = {
    "reconstructions": (
        "Reconstructions",
        "The same clips, decoded by every run from its tokens and from prefixes of them. A run "
        "without so short a prefix shows its shortest.",
    ),
    "perturbed": (
        "Perturbed tokens",
        "What pFID measures: a share α of the tokens is replaced by one of their δ nearest codes. "
        "The maps hold the Fréchet distance of every cell, over the frames of all clips.",
    ),
    "generated": (
        "Generated clips",
        "Samples of the generator, one class a row: the first ones of those behind gFVD, not "
        "chosen.",
    ),
}
_PARTS = {  # what may be left out of a page that is too long, first to last
    "rows": "the table of all rows",
    "training": "training curves",
    "configs": "resolved configs",
    "differences": "settings that differ",
    "codebooks": "codebook histograms",
    "maps": "pFID maps",
    "tables": "each run's own table",
    "record": "the protocol of every distance",
    "exported": "links to the tables as files, which lie beside this page",
    "bits": "curves against bits",
    "damages": "curves under damage",
    "rates": "rate-distortion curves",
    "lengths": "curves over the kept length",
    "times": "curves over time",
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
    runs, naming = results.runs, Naming(results.rows)
    books = results.facts.get("codebook", {})
    orders = results.facts.get("order", {}).items()
    exported = {
        f"{stem}.csv": "data:text/csv;charset=utf-8," + quote(exports.comparison_csv(results)),
        f"{stem}.tex": "data:application/x-tex;charset=utf-8," + quote(exports.latex(results)),
    }
    return {
        "claims": claims.cards(results),
        "comparison": comparison(results),
        "differences": config_differences(results),
        "stages": stages.table(results),
        "lengths": curves.length_charts(results, "tokens"),
        "bits": curves.length_charts(results, "bits"),
        "times": time_charts(results),
        "rates": curves.rate_charts(results),
        "damages": curves.damage_charts(results),
        "relations": curves.relations(results),
        "probes": summary.probes(results),
        "orders": [{"run": run, "charts": run_charts.order_charts(one)} for run, one in orders],
        "rows": [summary.detail(row) for row in results.rows],
        "training": training(results),
        "configs": [{"name": run["name"], "text": summary.config(run)} for run in runs],
        "codebooks": run_charts.codebook_charts(books, places(results)) if books else [],
        "maps": [
            (run["name"], one)
            for run in runs
            for one in run_charts.heat_maps(results, run["name"], naming)
        ],
        "headline": summary.headline(results),
        "numbers": summary.strip_numbers(results),
        "kinds": summary.kinds(results),
        "few_short": summary.few_short(results),
        "run_legend": curves.run_legend(results),
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
    several, colors = len(results.runs) > 1, places(results)
    groups = _groups(image_grids, drawn, colors, several)
    found = {group["anchor"] for group in groups}
    names = {
        "claims": "Claims" if drawn["claims"] else "",
        "reconstructions": "Images" if "reconstructions" in found else "",
        "summary": "All runs" if len(drawn["comparison"].entries) > 1 else "Numbers",
        "settings": "Settings" if drawn["differences"] else "",
        "stages": "Stages" if drawn["stages"] else "",
        "generated": "Generated" if "generated" in found else "",
        "lengths": "Lengths" if drawn["lengths"] or drawn["bits"] else "",
        "time": "Time" if drawn["times"] else "",
        "training": "Training" if drawn["training"] else "",
        "rates": "Rate" if drawn["rates"] else "",
        "relations": "Correlation" if drawn["relations"] else "",
        "perturbed": "Perturbed" if "perturbed" in found else "",
        "damage": "Damage" if drawn["damages"] else "",
        "probe": "Probe" if drawn["probes"] else "",
        "order": "Order" if drawn["orders"] else "",
        "codebook": "Codebook" if drawn["codebooks"] else "",
        "meanings": "Meaning",
        "protocol": "Protocol",
    }
    read = lambda name: Markup((TEMPLATES / name).read_text(encoding="utf-8"))
    return (
        environment(True)
        .get_template("report.html.j2")
        .render(
            **summary.common(results),
            **drawn,
            style=read("report.css"),
            script=read("tables.js") + read("report.js"),
            groups=groups,
            places=colors,
            order_grids=[_grid(g, several) for g in image_grids if g["kind"] == "order"],
            left_out=left_out,
            numbers_file=numbers,
            sections=[(anchor, title) for anchor, title in names.items() if title],
        )
    )


def _groups(
    image_grids: Sequence[dict[str, Any]],
    drawn: dict[str, Any],
    colors: dict[str, int],
    several: bool,
) -> list[dict[str, Any]]:
    """The groups of images, in reading order; pFID's maps stand under its images."""
    plays = lambda grid: (grid.get("frames") or 1) > 1
    groups, clips = [], any(map(plays, image_grids))
    for kind, (title, caption) in _GRIDS.items():
        slides = viewers(image_grids, kind, colors)
        grids = [g for g in image_grids if g["kind"] == kind] if not slides else []
        maps = drawn["maps"] if kind == "perturbed" else []
        moving = any(plays(grid) for grid in image_grids if grid["kind"] == kind)
        if clips:
            title, caption = _CLIPS.get(kind, (title, caption))
        if slides or grids or maps:
            groups.append(
                {
                    "anchor": kind,
                    "title": title,
                    "caption": caption,
                    "moving": moving,
                    "viewers": slides,
                    "lossless": all(one.lossless for one in slides),
                    "grids": [_grid(g, several) for g in grids],
                    "maps": maps,
                }
            )
    return groups


def _grid(grid: dict[str, Any], several: bool) -> dict[str, Any]:
    width = grid["size"][1]
    heading = [grid["run"]] if several else []
    heading += [f"guidance {scale_text(grid['guidance'])}"] if "guidance" in grid else []
    most = 64 if len(grid["rows"]) > 4 and grid["kind"] == "generated" else 128
    pixels = shown_side(width, most)
    return {
        **grid,
        "note": grid.get("note", ""),
        "heading": ", ".join(heading),
        "cells": grid.get("cells") or len(grid["columns"]),
        "pixels": pixels,
        "small": pixels > width,
        "moving": (grid.get("frames") or 1) > 1,
    }
