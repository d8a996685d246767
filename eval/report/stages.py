"""Stages: tokenizers that came from other ones of the same results, beside those they came from.

Who came from whom stands in the lineage of each run's config.json. A difference is told for each
seed by itself, since a mean over two or three seeds hides whether they agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from vistok.eval.report.comparison import longest
from vistok.eval.report.naming import named
from vistok.eval.report.tables import by_run
from vistok.eval.results.metrics import metric as metric_of
from vistok.eval.results.metrics import order, shown
from vistok.eval.results.rows import Results, Row
from vistok.eval.results.text import value_text

_METRICS = ("rFID", "pFID-v1", "pFID-v1-quick", "gFID")


@dataclass(frozen=True)
class Stage:
    """A tokenizer of one seed, and the one it came from."""

    run: str
    """Name of the run among the results."""
    name: str
    """Name without the folders that seeds have."""
    seed: str
    """Seed of its training; "" if it is not known."""
    parent: str
    """The run it came from; "" for a first stage."""
    kind: str
    """training, post-training, fine-tuning or next stage."""
    changed: tuple[str, ...]
    """Parts that the stage changed."""
    rows: Mapping[str, Row]
    """The measured numbers by the name of their column."""

    def value(self, column: str) -> float | None:
        row = self.rows.get(column)
        return None if row is None else row.number


def stages(results: Results) -> list[Stage]:
    """All tokenizers, each first stage followed by those that came from it; [] if none did."""
    runs = [run for run in results.runs if run.get("kind") == "tokenizer"]
    by_hash = {run["sha256"]: run["name"] for run in runs}
    parents = {run["name"]: _parent(run, by_hash) for run in runs}
    if not any(parents.values()):
        return []
    of = {run["name"]: run for run in runs}
    pairs = results.facts.get("pairs") or {}
    rows = by_run(row for row in results.rows if row.plain and row.metric in _METRICS)
    found: list[Stage] = []

    def add(name: str, parent: str) -> None:
        own = [*rows.get(name, ()), *(r for g in pairs.get(name, ()) for r in rows.get(g, ()))]
        own = sorted(longest(own), key=lambda row: order(row.metric))
        found.append(_stage(of[name], parent, {named(row): row for row in own}))
        for child in [one for one, before in parents.items() if before == name]:
            add(child, name)

    for run in runs:
        if not parents[run["name"]]:
            add(run["name"], "")
    return found


def _parent(run: Mapping[str, Any], by_hash: Mapping[str, str]) -> str:
    """The run among the results that a run came from; "" if there is none."""
    lineage = (run.get("model") or {}).get("lineage") or ()
    for parent in lineage[-1]["parents"] if lineage else ():
        name = by_hash.get(parent["sha256"], "")
        if name and name != run["name"]:
            return name
    return ""


def _stage(run: Mapping[str, Any], parent: str, rows: Mapping[str, Row]) -> Stage:
    lineage = (run.get("model") or {}).get("lineage") or ()
    seed = (run.get("config") or {}).get("seed")
    last = lineage[-1] if parent else {"kind": "training", "changed": ()}
    return Stage(
        run["name"],
        PurePosixPath(run["name"]).name,
        "" if seed is None else str(seed),
        parent,
        last["kind"],
        tuple(last["changed"]),
        rows,
    )


def table(results: Results) -> dict[str, Any] | None:
    """The table of stages as plain values; None without any that came from another.

    Lines of several seeds of one stage are followed by their mean.
    """
    found = stages(results)
    if not found:
        return None
    columns = list(dict.fromkeys(column for stage in found for column in stage.rows))
    columns.sort(key=lambda column: order(_row(found, column).metric))
    at = {stage.run: stage for stage in found}
    names = list(dict.fromkeys(stage.name for stage in found))
    lines = []
    for name in names:
        group = [stage for stage in found if stage.name == name]
        lines += [_line(stage, at, columns) for stage in group]
        if len(group) > 1:
            lines.append(_mean(group, at, columns))
    heads = [
        (metric_of(_row(found, column).metric).heading, column.partition("[")[2])
        for column in columns
    ]
    heads = [(title, f"[{inside}" if inside else "") for title, inside in heads]
    return {"columns": heads, "lines": lines}


def _row(found: Sequence[Stage], column: str) -> Row:
    return next(stage.rows[column] for stage in found if column in stage.rows)


def _line(stage: Stage, at: Mapping[str, Stage], columns: Sequence[str]) -> dict[str, Any]:
    cells = []
    for column in columns:
        row, before = stage.rows.get(column), at.get(stage.parent)
        text = "" if row is None else value_text(row)
        moved = None if before is None else _moved(before, stage, column)
        cells.append((text, "" if moved is None else f"{moved:+.2f}"))
    return {**_said(stage, at), "seed": stage.seed, "cells": cells}


def _mean(
    group: Sequence[Stage], at: Mapping[str, Stage], columns: Sequence[str]
) -> dict[str, Any]:
    cells = []
    for column in columns:
        values = [stage.value(column) for stage in group]
        if any(value is None for value in values):
            cells.append(("", ""))
            continue
        text = shown(sum(values) / len(values), _row(group, column).metric)
        moves = [_moved(at[s.parent], s, column) if s.parent else None for s in group]
        known = [move for move in moves if move is not None]
        moved = f"{sum(known) / len(known):+.2f}" if len(known) == len(group) else ""
        cells.append((text, moved))
    return {**_said(group[0], at), "seed": f"mean of {len(group)}", "cells": cells}


def _said(stage: Stage, at: Mapping[str, Stage]) -> dict[str, str]:
    """Words on a stage: its name, what it is, which parts it changed."""
    kind = f"{stage.kind} of {at[stage.parent].name}" if stage.parent else stage.kind
    return {"name": stage.name, "kind": kind, "changed": ", ".join(stage.changed)}


def _moved(before: Stage, after: Stage, column: str) -> float | None:
    """The difference of a number between two stages; None unless both have it."""
    values = before.value(column), after.value(column)
    return None if None in values else values[1] - values[0]


def sentences(results: Results) -> list[str]:
    """Sentences that compare the numbers of stages: of each later stage with those of the one it
    came from, and of each first stage with those of the first of all."""
    found = stages(results)
    if not found:
        return []
    at = {stage.run: stage for stage in found}
    firsts = [stage for stage in found if not stage.parent]
    said = []
    for name in dict.fromkeys(stage.name for stage in found):
        group = [stage for stage in found if stage.name == name]
        if all(stage.parent for stage in group):
            pairs = [(at[stage.parent], stage) for stage in group]
            what = f"{name} ({group[0].kind}) against {pairs[0][0].name}"
        elif name != firsts[0].name:
            twins = {stage.seed: stage for stage in firsts if stage.name == firsts[0].name}
            pairs = [(twins[s.seed], s) for s in group if s.seed in twins]
            what = f"{name} against {firsts[0].name}"
        else:
            continue
        told = [_told(pairs, column) for column in group[0].rows]
        if any(told):
            said.append(f"{what}: {'; '.join(filter(None, told))}.")
    seeds = len({stage.seed for stage in found})
    if seeds < 3:
        said.append(
            f"{seeds} {'seed' if seeds == 1 else 'seeds'}: these differences are what was "
            "measured, and no claim about other seeds, data or sizes."
        )
    return said


def _told(pairs: Sequence[tuple[Stage, Stage]], column: str) -> str:
    """ "gFID 10.00 -> 9.00, 11.00 -> 9.50 (lower with every seed)"; "" if nothing was measured."""
    both = [(before.rows.get(column), after.rows.get(column)) for before, after in pairs]
    known = [(b, a) for b, a in both if b is not None and a is not None]
    known = [(b, a) for b, a in known if None not in (b.number, a.number)]
    moves = [after.number - before.number for before, after in known]
    if not known:
        return ""
    values = ", ".join(f"{value_text(before)} -> {value_text(after)}" for before, after in known)
    up, down = all(move > 0 for move in moves), all(move < 0 for move in moves)
    way = "higher" if up else "lower" if down else "seeds disagree" if len(moves) > 1 else "equal"
    if len(moves) > 1 and (up or down):
        way += " with every seed"
    title = column.partition("[")[0]
    guided = column.partition("] ")[2]
    return f"{title}{f' {guided}' if guided else ''} {values} ({way})"
