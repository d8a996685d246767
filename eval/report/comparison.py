"""All runs in one table: a row for each at its full length, a column for each number.

A tokenizer shares its row with its generator where it has one; several generators have rows of
their own. Numbers of other images, networks or guidance are other columns; numbers in one column
whose protocols still differ from its first are marked, and never compete for the best.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from vistok.eval.report.naming import ARROWS, Naming
from vistok.eval.report.tables import by_run
from vistok.eval.results.compare import differences
from vistok.eval.results.metrics import metric as metric_of
from vistok.eval.results.metrics import order
from vistok.eval.results.rows import Results, Row
from vistok.eval.results.text import (
    BELOW,
    few,
    floor_images,
    floor_text,
    spread_text,
    tip,
    value_text,
)


@dataclass(frozen=True)
class Column:
    name: str  # whole: with network, data and guidance
    metric: str
    better: str  # "higher", "lower" or ""
    title: str = ""  # on a page: the metric
    inside: str = ""  # on a page: what the metric alone does not tell
    floor: str = ""  # what real images have; of PSNR, each image's mean color
    floor_means: str = ""  # a sentence on it

    @property
    def arrow(self) -> str:
        return ARROWS[self.better]


@dataclass(frozen=True)
class Cell:
    text: str = ""  # "" where nothing was measured
    value: float | None = None  # infinite and undefined ones too
    best: bool = False
    differs: tuple[str, ...] = ()  # protocol fields in which it differs from the column's first
    few: str = ""  # reason why it rests on too few images
    count: int = 0  # images behind it
    spread: str = ""  # what stands beside the value: its range over seeds, or half its interval
    interval: tuple[float, float] | None = None
    floor: float | None = None
    tip: str = ""  # a sentence on spread and floor

    @property
    def whole(self) -> str:
        """The value with its marks and its spread."""
        return f"{self.text} {self.spread}".strip()


@dataclass(frozen=True)
class Entry:
    """One row of the table."""

    run: str
    generator: str  # "" where it has none
    place: int  # color of the run in all charts
    facts: tuple[str, ...]  # one for each of Comparison.facts
    cells: tuple[Cell, ...]

    @property
    def differs(self) -> tuple[str, ...]:
        """Protocol fields in which any of its numbers differs."""
        return tuple(dict.fromkeys(field for cell in self.cells for field in cell.differs))

    @property
    def name(self) -> str:
        return f"{self.run} + {self.generator}" if self.generator else self.run


@dataclass(frozen=True)
class Comparison:
    facts: tuple[str, ...]
    columns: tuple[Column, ...]
    entries: tuple[Entry, ...]

    @property
    def floors(self) -> bool:
        """True if some column has a floor."""
        return any(column.floor for column in self.columns)

    @property
    def below(self) -> bool:
        """True if some number lies below its floor."""
        return any(BELOW in cell.text for entry in self.entries for cell in entry.cells)

    @property
    def spread(self) -> bool:
        """True if some number has one."""
        return any(cell.spread for entry in self.entries for cell in entry.cells)

    @property
    def mixed(self) -> tuple[str, ...]:
        """All fields in which some number differs from its column's first."""
        return tuple(dict.fromkeys(f for entry in self.entries for f in entry.differs))


def comparison(results: Results) -> Comparison:
    """The table of all runs."""
    found: dict[tuple, dict[tuple[str, str], Row]] = {}
    shown: dict[str, tuple[str, str]] = {}
    guided: set[str] = set()
    lines, naming = _lines(results), Naming(results.rows)
    rows = by_run(row for row in results.rows if row.plain)
    owned = {name for names in (results.facts.get("pairs") or {}).values() for name in names}
    for line in lines:
        for run in filter(None, line):
            owner = run in owned
            for row in longest(rows.get(run, ())):
                if not metric_of(row.metric).floor:
                    # A generator's KID stands beside its tokenizer's, not in its place.
                    apart = owner and not metric_of(row.metric).generated
                    short = naming.of(row)
                    name = short.whole + (", generated" if apart else "")
                    inside = ", ".join(filter(None, (short.inside, apart and "generated")))
                    shown[name] = (short.title, inside)
                    if row.guidance not in (None, 1.0):
                        guided.add(name)
                    found.setdefault((row.metric, name), {}).setdefault(line, row)
    keys = sorted(found, key=lambda key: (order(key[0]), key[1] in guided))  # unguided first
    colors_of = results.find("PSNR-mean-color")
    columns = tuple(
        Column(
            name,
            metric,
            metric_of(metric).better,
            *shown[name],
            *_floor(tuple(found[metric, name].values()), colors_of),
        )
        for metric, name in keys
    )
    cells = [_cells(found[key], column) for key, column in zip(keys, columns, strict=True)]
    runs = {run["name"]: run for run in results.runs}
    colors = places(results)
    entries = tuple(
        Entry(
            line[0],
            line[1],
            colors.get(line[0], 0),
            _facts(runs.get(line[0], {})),
            tuple(column.get(line, Cell()) for column in cells),
        )
        for line in lines
    )
    return Comparison(("tokens", "vocabulary", "parameters"), columns, entries)


def places(results: Results) -> dict[str, int]:
    """{run: its color}: tokenizers in turn; a generator has that of its tokenizer."""
    found: dict[str, int] = {}
    pairs = results.facts.get("pairs") or {}
    owned = {generator for names in pairs.values() for generator in names}
    for run in results.runs:
        if run["name"] not in owned:
            found.setdefault(run["name"], len(found))
    for tokenizer, generators in pairs.items():
        for generator in generators:
            found[generator] = found.get(tokenizer, 0)
    return found


def longest(rows: Iterable[Row]) -> list[Row]:
    """The row at the greatest length of each metric (and network, data, guidance)."""
    best: dict[tuple, Row] = {}
    for row in rows:
        key = (row.metric, row.display, row.clip, row.guidance)
        if key not in best or (row.length or 0) > (best[key].length or 0):
            best[key] = row
    return list(best.values())


def _lines(results: Results) -> list[tuple[str, str]]:
    """(tokenizer, generator) of each row; "" for none."""
    pairs = results.facts.get("pairs") or {}
    owned = {generator for names in pairs.values() for generator in names}
    lines: list[tuple[str, str]] = []
    for run in results.runs:
        if run["name"] in owned:
            continue
        generators = pairs.get(run["name"]) or [""]
        if len(generators) == 1:
            lines.append((run["name"], generators[0]))
        else:
            lines += [(run["name"], ""), *((name, "") for name in generators)]
    return list(dict.fromkeys(lines))


def _cells(rows: dict[tuple[str, str], Row], column: Column) -> dict[tuple[str, str], Cell]:
    first = next(iter(rows.values()))
    differs = {line: differences(first, row) for line, row in rows.items()}
    fair = [r.value for line, r in rows.items() if not differs[line] and r.value is not None]
    best = None
    if column.better and len(fair) > 1 and len(set(fair)) > 1:
        best = max(fair) if column.better == "higher" else min(fair)
    return {
        line: Cell(
            value_text(row),
            row.number,
            best is not None and not differs[line] and row.value == best,
            differs[line],
            few(row),
            row.count,
            spread_text(row),
            row.interval,
            None if row.floor is None else row.floor.value,
            tip(row),
        )
        for line, row in rows.items()
    }


def _floor(rows: Sequence[Row], colors: Sequence[Row]) -> tuple[str, str]:
    """The floor of a column and a sentence on it; "" where its rows have none, or several."""
    if rows[0].metric == "PSNR":
        own = [one for one in colors if one.reference == rows[0].reference]
        texts = list(dict.fromkeys(map(value_text, own)))
        return (texts[0], "each image in its own mean color") if len(texts) == 1 else ("", "")
    known = [row for row in rows if row.floor is not None]
    texts = list(dict.fromkeys(map(floor_text, known)))
    if len({row.floor.value for row in known if row.floor is not None}) > 1:
        return "…", "; ".join(f"{row.run}: {floor_text(row)}" for row in known)
    return (texts[0], floor_images(known[0])) if texts else ("", "")


def _facts(run: dict[str, Any]) -> tuple[str, ...]:
    spec = run.get("spec") or {}
    blocks = spec.get("blocks") or []
    tokens = str(sum(map(math.prod, blocks))) if blocks else ""
    vocabulary = " x ".join(map(str, spec.get("vocab", ())))
    parameters = run.get("parameters")
    return (
        tokens,
        vocabulary or ("continuous" if spec else ""),
        "" if parameters is None else f"{parameters / 1e6:.2f} M",
    )
