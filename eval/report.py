"""Results -> one self-contained report.html, report.md and results.json. Nothing is computed here.

Any results.json can be shown again: `write_report(Results.load(path), target)`. All text goes
through jinja2's autoescape; styles, charts and pictures are inline, so the page loads nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from eval import charts
from eval.rows import Results, Row
from eval.tables import length_table, markdown, plain_row, tables
from eval.words import shown, word

_TEMPLATES = Path(__file__).parent / "templates"
_CELL = 128  # pixels on the page to which small pictures are enlarged, by a whole factor
_HONEST = {
    "photos": "held-out views of the same seven photographs that training looked at, not unseen "
    "photographs. Numbers say how well these scenes are rendered, not how well the model "
    "generalises.",
}
_TILES = (
    "PSNR",
    "rFID",
    "pFID-v1",
    "perceptual",
    "LPIPS",
    "SSIM",
    "bytes/image",
    "codebook-usage",
    "gFID",
    "gFID-untrained",
)
_GRIDS = {
    "reconstructions": (
        "Reconstructions",
        "The first row is real; below it the same pictures, painted from fewer and fewer tokens.",
    ),
    "perturbed": (
        "Perturbed tokens",
        "The same pictures with a share α of the tokens replaced by one of their δ nearest codes: "
        "what pFID measures. The maps hold the Fréchet distance of every cell.",
    ),
    "generated": (
        "Generated pictures",
        "Samples of the generator, one class a row: the first ones of those behind gFID, not "
        "chosen.",
    ),
}


def write_report(results: Results, target: str | Path) -> list[Path]:
    """Write target (.html), and beside it the .md and results.json; the paths written."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    numbers = target.with_name("results.json")
    results.save(numbers)
    page = render_html(results)
    target.write_text(page, encoding="utf-8")
    notes = target.with_suffix(".md")
    notes.write_text(render_markdown(results, target.name, numbers.name), encoding="utf-8")
    return [numbers, notes, target]


def render_html(results: Results) -> str:
    """The page."""
    view = _view(results)
    grids = _grids(results)
    sweeps = charts.sweep_charts(results)
    books = [
        {"run": run, "charts": charts.codebook_charts(facts)}
        for run, facts in results.facts.get("codebook", {}).items()
    ]
    training = [
        {"run": run["name"], "charts": drawn}
        for run in results.runs
        if (drawn := charts.training_charts(run))
    ]
    sections = [("summary", "Summary")]
    sections += [("lengths", "Lengths")] if sweeps else []
    sections += [(group["anchor"], group["title"]) for group in grids]
    sections += [("codebook", "Codebook")] if books else []
    sections += [("training", "Training")] if training else []
    sections += [("words", "Meaning"), ("protocol", "Protocol")]
    return (
        _environment(True)
        .get_template("report.html.j2")
        .render(
            **view,
            style=Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8")),
            cards=_cards(results),
            tables=tables(results),
            sweeps=sweeps,
            grids=grids,
            codebooks=books,
            training=training,
            sections=sections,
            rows=[_row(row) for row in results.rows],
            configs=[{"name": run["name"], "text": _config(run)} for run in results.runs],
        )
    )


def render_markdown(results: Results, html: str, numbers: str) -> str:
    """The same numbers as text."""
    blocks = []
    for table in tables(results):
        blocks.append(markdown(*length_table(table)))
        if table.whole:
            body = [[line.name, *line.cells] for line in table.whole]
            blocks.append(markdown([f"{table.run}, whole set", ""], body))
    text = (
        _environment(False)
        .get_template("report.md.j2")
        .render(
            **{key: _plain(value) for key, value in _view(results).items()},
            blocks=blocks,
            html=html,
            json=numbers,
        )
    )
    return text.strip() + "\n"


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
    """For Markdown, where raw HTML would be shown as such: no tag survives."""
    if isinstance(value, str):
        return value.replace("<", "&lt;")
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def _view(results: Results) -> dict[str, Any]:
    """What HTML and Markdown both show."""
    facts = results.facts
    used = list(dict.fromkeys(row.metric for row in results.rows if plain_row(row)))
    sets = list(dict.fromkeys(row.reference.name for row in results.rows))
    return {
        "names": [run["name"] for run in results.runs],
        "lead": _lead(results),
        "honest": " ".join(_HONEST[name] for name in sets if name in _HONEST),
        "skipped": facts.get("skipped", []),
        "words": [(word(m).title, word(m).explained) for m in used if word(m).explained],
        "protocol": _protocol(results),
        "command": facts.get("command", ""),
        "date": facts.get("date", ""),
    }


def _lead(results: Results) -> str:
    if not results.rows:
        return "No number was measured."
    first = next((row for row in results.rows if row.metric == "rFID"), results.rows[0])
    size = "" if first.size is None else f" of {first.size[0]}x{first.size[1]} pixels"
    network = results.facts.get("features", {}).get("name", "?")
    return (
        f"{first.reference.count:,} {first.reference.name} pictures{size} "
        f"({first.reference.split} split), Fréchet distances with {network}."
    )


def _cards(results: Results) -> list[dict[str, Any]]:
    """The headline of every run: its numbers at full length."""
    cards = []
    for run in results.runs:
        rows = [
            r for r in results.rows if r.run == run["name"] and r.metric in _TILES and plain_row(r)
        ]
        longest = max((r.length for r in rows if r.length is not None), default=None)
        tiles = []
        for metric in _TILES:
            for row in rows:
                if row.metric == metric and row.length in (longest, None):
                    tiles.append(_tile(row))
        cards.append({"run": run["name"], "kind": _kind(run), "tiles": tiles})
    return cards


def _tile(row: Row) -> dict[str, str]:
    better = word(row.metric).better
    note = {"lower": "lower is better", "higher": "higher is better", "": ""}[better]
    if row.metric == "gFID" and row.decode.guidance is not None:
        note = f"guidance {row.decode.guidance:g}, {note}"
    unit = " dB" if row.metric.startswith("PSNR") else ""
    name, _, inside = row.display.partition("[")
    value = shown(row.value, row.metric) + unit
    return {"value": value, "name": name, "inside": f"[{inside}", "note": note}


def _kind(run: dict[str, Any]) -> str:
    spec = run.get("spec", {})
    vocab = " x ".join(map(str, spec.get("vocab", ()))) or "continuous"
    return f"{run['kind']}, {run.get('parameters', 0) / 1e6:.2f} M parameters, vocabulary {vocab}"


def _grids(results: Results) -> list[dict[str, Any]]:
    """The groups of picture grids, in reading order; pFID's maps stand under its pictures."""
    groups = []
    for kind, (title, caption) in _GRIDS.items():
        found = [g for g in results.facts.get("pictures", ()) if g["kind"] == kind]
        maps = []
        if kind == "perturbed":
            maps = [m for run in results.runs for m in charts.heat_maps(results, run["name"])]
        if not found and not maps:
            continue
        groups.append(
            {
                "anchor": kind,
                "title": title,
                "caption": caption,
                "grids": [_grid(g, len(results.runs) > 1) for g in found],
                "charts": maps,
            }
        )
    return groups


def _grid(grid: dict[str, Any], several: bool) -> dict[str, Any]:
    width = grid["size"][1]
    heading = [grid["run"]] if several else []
    heading += [f"guidance {grid['guidance']:g}"] if "guidance" in grid else []
    heading += [grid["note"]] if grid.get("note") else []
    return {
        **grid,
        "heading": ", ".join(heading),
        "cells": grid.get("cells") or len(grid["columns"]),
        "pixels": max(1, _CELL // width) * width,
        "small": width < _CELL,
    }


def _protocol(results: Results) -> list[tuple[str, str]]:
    facts = results.facts
    features = facts.get("features", {})
    network = f"{features.get('name', '?')}, sha256 {features.get('sha256', '?')}"
    lines = [("feature network", network)]
    references = {row.reference.manifest: row for row in results.rows}
    for row in references.values():
        r = row.reference
        lines.append(
            ("reference", f"{r.name}, {r.split} split, {r.count:,} pictures, {r.described}")
        )
        lines.append(("reference manifest", r.manifest))
        lines.append(("crop and filter", f"{row.crop or 'none'}; {row.filter or 'none'}"))
    lines.append(("precision", ", ".join(sorted({row.precision for row in results.rows}))))
    lines += [(f"weights of {run['name']}", run["sha256"]) for run in results.runs]
    versions = facts.get("versions", {})
    lines.append(("versions", ", ".join(f"{k} {v}" for k, v in versions.items())))
    lines.append(("commit", facts.get("commit") or "unknown"))
    lines.append(
        ("machine", f"{facts.get('world_size', 1)} process(es) on {facts.get('device', '?')}")
    )
    return lines


def _row(row: Row) -> dict[str, Any]:
    decode = {k: v for k, v in row.decode.model_dump().items() if v is not None}
    return {
        **{name: getattr(row, name) for name in ("display", "run", "length", "samples", "note")},
        "perturbation": row.perturbation,
        "shown": shown(row.value, row.metric),
        "decode": ", ".join(f"{k} {v}" for k, v in decode.items()),
    }


def _config(run: dict[str, Any]) -> str:
    """The run's resolved training config, or what a saved model says of itself."""
    if run.get("config") is not None:
        return yaml.safe_dump(run["config"], sort_keys=False, allow_unicode=True)
    return json.dumps(run.get("model", {}), indent=2, ensure_ascii=False)
