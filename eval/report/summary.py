"""Text and small tables of a report: results -> plain values for the templates."""

from __future__ import annotations

import json
import math
from typing import Any

from vistok.config.yaml_text import dump_yaml
from vistok.eval.report.comparison import longest
from vistok.eval.report.naming import Naming
from vistok.eval.report.tables import by_run
from vistok.eval.results.metrics import metric, ranked
from vistok.eval.results.rows import Results, Row
from vistok.eval.results.text import (
    BELOW_MEANS,
    FEW_MEANS,
    below_reasons,
    few,
    few_reasons,
    floor_text,
    schedule_text,
    spread_means,
    spread_text,
    tip,
    value_text,
    whole_text,
)

_HONEST = {
    "photos": "held-out views of the same seven photographs that training looked at, not unseen "
    "photographs. Numbers say how well these scenes are rendered, not how well the model "
    "generalizes.",
}
_GENERATED = ("gFID", "gFID-frame", "gFVD")  # of generators, among the key numbers
_BESIDE = ("PSNR", "rFID", "rFVD", "rFID-frame")  # beside images: the first two that there are
_FIELDS = ("network", "reference", "count", "crop, filter, size", "sampling", "precision")


def common(results: Results) -> dict[str, Any]:
    """Values that HTML and Markdown both show."""
    facts = results.facts
    used = list(dict.fromkeys(row.metric for row in results.rows if not _is_cell(row)))
    sets = list(dict.fromkeys(row.reference.name for row in results.rows))
    return {
        "names": [run["name"] for run in results.runs],
        "tokenizers": _tokenizers(results),
        "lead": _lead(results),
        "legend": " ".join(Naming(results.rows).legend()),
        "honest": " ".join(_HONEST[name] for name in sets if name in _HONEST),
        "study": facts.get("study", {}).get("sentences", ()),
        "skipped": facts.get("skipped", []),
        "few": few_reasons(results.rows),
        "few_means": FEW_MEANS,
        "below": below_reasons(row for row in results.rows if row.plain),
        "below_means": BELOW_MEANS,
        "spread_means": spread_means(row for row in results.rows if row.plain),
        "meanings": [(metric(m).heading, metric(m).help) for m in used if metric(m).help],
        "protocol": protocol(results),
        "commands": commands(results),
        "date": facts.get("date", ""),
    }


def kinds(results: Results) -> dict[str, str]:
    """{run: what it is: kind, parameters, tokens, vocabulary}."""
    return {run["name"]: _kind(run) for run in results.runs}


def few_short(results: Results) -> list[str]:
    """`few_reasons` with the short names of a page."""
    naming = Naming(results.rows)
    rows = [row for row in results.rows if not _is_cell(row)]
    return few_reasons(rows, lambda row: naming.of(row, guided=False).text)


def below_short(results: Results) -> list[str]:
    """`below_reasons` with the short names of a page."""
    naming = Naming(results.rows)
    return below_reasons((r for r in results.rows if r.plain), lambda row: naming.of(row).text)


def headline(results: Results) -> list[dict[str, Any]]:
    """The key numbers of a page about one tokenizer: its own, and of its generators the gFID:
    first unguided, then guided with its schedule.

    [] for several tokenizers, which a table compares.
    """
    if len(_tokenizers(results)) != 1:
        return []
    tiles_of, naming = ranked("tile"), Naming(results.rows)
    rows = longest(row for row in results.rows if row.plain and row.metric in tiles_of)
    found = []
    for name in tiles_of:
        own = [row for row in rows if row.metric == name]
        if metric(name).generated:
            own.sort(key=lambda row: row.guidance not in (None, 1.0))  # stable
            own = own if name in _GENERATED else []
        found += own
    return [_tile(row, naming) for row in found]


def strip_numbers(results: Results) -> dict[str, dict[int, list[dict[str, Any]]]]:
    """{run: {kept tokens: its PSNR and Fréchet distance}}, which stand beside images."""
    naming = Naming(results.rows)
    found: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for run in results.runs:
        kept = {int(k): v.get("tokens") for k, v in (run.get("lengths") or {}).items()}
        for name in _BESIDE:
            rows = [r for r in results.find(name, run["name"]) if r.plain and r.length in kept]
            for row in rows:
                at = found.setdefault(run["name"], {}).setdefault(int(kept[row.length] or 0), [])
                if len(at) < 2 and name not in [one["metric"] for one in at]:
                    at.append(_tile(row, naming))
    return found


def commands(results: Results) -> list[str]:
    """The exact commands: of every evaluation that is in these results."""
    facts = results.facts
    return [one for one in dict.fromkeys((*facts.get("commands", ()), facts.get("command"))) if one]


def protocol(results: Results) -> list[tuple[str, str]]:
    """Facts that hold for all numbers, every set of real images and every network."""
    facts = results.facts
    lines = []
    networks = {(r.features.name, r.features.sha256) for r in results.rows if r.features}
    if not networks and (known := facts.get("features")):
        networks = {(known.get("name", "?"), known.get("sha256", "?"))}
    lines += [("network", f"{name}, sha256 {digest}") for name, digest in sorted(networks)]
    references = {(r.reference, r.crop, r.filter): r for r in results.rows}
    for (r, crop, filter_), row in references.items():
        many = f"{r.count:,} {_unit(row)}s"
        lines.append(("reference", f"{r.name}, {r.split} split, {many}, {r.described}"))
        lines.append(("reference manifest", r.manifest))
        lines.append(("crop and filter", f"{crop or 'none'}; {filter_ or 'none'}"))
    lines.append(("precision", ", ".join(sorted({row.precision for row in results.rows}))))
    lines += [(f"weights of {run['name']}", run["sha256"]) for run in results.runs]
    versions = facts.get("versions", {})
    lines.append(("versions", ", ".join(f"{k} {v}" for k, v in versions.items())))
    lines.append(("commit", facts.get("commit") or "unknown"))
    lines.append(
        ("machine", f"{facts.get('world_size', 1)} process(es) on {facts.get('device', '?')}")
    )
    return lines


def record(results: Results) -> dict[str, Any]:
    """Table of how each Fréchet distance was made, runs under one another.

    Fields that differ from the first of their metric are marked. Without networks: the other rows.
    """
    chosen = [r for r in results.rows if r.features is not None and r.plain] or results.rows
    lines, first = [], {}
    own = by_run(row for row in chosen if row.plain)
    for run in results.runs:
        for row in longest(own.get(run["name"], ())):
            values = _values(row)
            base = first.setdefault(row.metric, values)
            cells = [(v, v != b) for v, b in zip(values, base, strict=True)]
            lines.append({"run": run["name"], "name": row.display, "cells": cells})
    mixed = any(differs for line in lines for _, differs in line["cells"])
    return {"fields": _FIELDS, "lines": lines, "mixed": mixed}


def probes(results: Results) -> dict[str, Any] | None:
    """Linear probes: runs by taps."""
    rows = [row for row in results.rows if "tap" in row.point]
    if not rows:
        return None
    columns = list(dict.fromkeys((row.display, row.point["tap"]) for row in rows))
    names = list(dict.fromkeys(row.run for row in rows))
    at = {(row.run, row.display, row.point["tap"]): row for row in rows}
    lines = []
    for name in names:
        found = [at.get((name, *column)) for column in columns]
        cells = ["" if r is None else value_text(r) for r in found]
        notes = [f"{r.point['tap']}: {r.note}" for r in found if r is not None and r.note]
        counts = sorted({r.count for r in found if r is not None})
        lines.append(
            {"run": name, "cells": cells, "count": ", ".join(map(str, counts)), "notes": notes}
        )
    return {"columns": columns, "lines": lines}


def detail(row: Row) -> dict[str, Any]:
    """A line of the table of all rows."""
    special = [f"{key} {_short(value)}" for key, value in row.point.items()]
    special += [f"{key} {_short(value)}" for key, value in row.measured.items()]
    return {
        **{name: getattr(row, name) for name in ("display", "run", "length", "count", "note")},
        "special": ", ".join(special),
        "shown": whole_text(row),
        "sampling": _sampled(row),
    }


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _sampled(row: Row) -> str:
    """Settings of generator and decoder that sampled, and the seed."""
    said = [
        f"{part} {key} {_short(value)}"
        for part, settings in row.sampling.items()
        for key, value in settings.items()
        if value is not None
    ]
    return ", ".join([*said, *([] if row.seed is None else [f"seed {row.seed}"])])


def _is_cell(row: Row) -> bool:
    return row.metric.endswith("-cell")


def config(run: dict[str, Any]) -> str:
    """The run's resolved training config, or the config of a saved model."""
    if run.get("config") is not None:
        return dump_yaml(run["config"])
    return json.dumps(run.get("model", {}), indent=2, ensure_ascii=False)


def _tokenizers(results: Results) -> list[str]:
    """Runs that are no generator of another: what a page is about."""
    pairs = results.facts.get("pairs") or {}
    owned = {generator for names in pairs.values() for generator in names}
    return [run["name"] for run in results.runs if run["name"] not in owned]


def _lead(results: Results) -> str:
    """The images and networks that all numbers of a page come from."""
    if not results.rows:
        return "No number was measured."
    sets: dict[tuple, Row] = {}
    for row in results.rows:
        r = row.reference
        sets.setdefault((r.name, r.split, r.count, row.size), row)
    said = [_set(row) for row in sets.values()]
    networks = sorted({row.features.name for row in results.rows if row.features})
    return f"{'; '.join(said)}. Networks: {', '.join(networks) or 'none'}."


def _set(row: Row) -> str:
    size = "" if row.size is None else f" of {row.size[-2]}x{row.size[-1]} pixels"
    size = size if row.clip is None else f" of {row.clip[0]} frames{size}"
    r = row.reference
    return f"{r.count:,} {_unit(row)}s{size} ({r.name}, {r.split} split)"


def _unit(row: Row) -> str:
    return "image" if row.clip is None else "clip"


def _tile(row: Row, naming: Naming) -> dict[str, Any]:
    name, schedule = naming.of(row), schedule_text(row)
    return {
        "metric": row.metric,
        "value": value_text(row),
        "name": name,
        "few": few(row),
        "count": row.count,
        "spread": spread_text(row),
        "floor": floor_text(row),
        "schedule": schedule if schedule == "constant" else "",  # the name has any other
        "tip": tip(row),
    }


def _kind(run: dict[str, Any]) -> str:
    spec = run.get("spec") or {}
    vocab = " x ".join(map(_grouped, spec.get("vocab", ())))
    tokens = sum(map(math.prod, spec.get("blocks") or ()))
    size = run.get("parameters") or 0
    said = [run["kind"], f"{size / 1e6:.2f} M parameters"]
    said += [f"{tokens:,} tokens"] if tokens else []
    return ", ".join([*said, f"vocabulary {vocab}" if vocab else "continuous"])


def _grouped(number: int | str) -> str:
    return f"{number:,}" if isinstance(number, int) else str(number)


def _values(row: Row) -> tuple[str, ...]:
    r = row.reference
    size = "any size" if row.size is None else "x".join(map(str, row.size))
    network = "none" if row.features is None else f"{row.features.name} {row.features.sha256[:12]}"
    made = _sampled(row.model_copy(update={"sampling": _unswept(row)}))
    return (
        network,
        f"{r.name}, {r.split}, {r.count:,}, {r.manifest[:12]}",
        f"{row.count:,}",
        "; ".join((row.crop or "none", row.filter or "none", size)),
        "; ".join(filter(None, (made, f"condition {row.condition}"))),
        row.precision,
    )


def _unswept(row: Row) -> dict[str, dict[str, Any]]:
    """The sampling without guidance, which the number's name already says."""
    swept = lambda settings: {k: v for k, v in settings.items() if k != "guidance"}
    return {part: swept(settings) for part, settings in row.sampling.items()}
