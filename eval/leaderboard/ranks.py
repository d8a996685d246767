"""Entries -> tables of one protocol each, best first, with ranks that ties and intervals share.

A row's rank is one more than the number of rows that are clearly better: rows that print another
number and whose interval (the number itself, where none was computed) lies wholly on the better
side. So rows that print alike, or whose intervals overlap, share a rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vistok.eval.leaderboard.entries import Entry, identity
from vistok.eval.results.metrics import metric, order, shown
from vistok.eval.results.rows import Row

MEANING = (
    "A rank is one more than the number of rows that are clearly better: they print another "
    "number, and their 95 % interval (the number itself, where there is none) lies wholly on the "
    "better side. Rows that print alike or whose intervals overlap share a rank."
)


@dataclass(frozen=True)
class Place:
    """An entry in its table."""

    entry: Entry
    rank: int | None
    """None for one that is not ranked: contradictory, not finite, or the only one of its table."""


@dataclass(frozen=True)
class Table:
    """All entries of one protocol."""

    first: Row
    """A row of it: whatever the protocol says stands there."""
    places: tuple[Place, ...]


def tables(entries: Sequence[Entry]) -> list[Table]:
    """A table for each protocol: in the order of the metrics, those with most models first."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(identity(entry.row), []).append(entry)
    made = {key: _table(own) for key, own in groups.items()}

    def place(key: str) -> tuple:
        models = {tuple(sorted(p.entry.row.weights.items())) for p in made[key].places}
        return order(made[key].first.metric), made[key].first.metric, -len(models), key

    return [made[key] for key in sorted(made, key=place)]


def rankable(entry: Entry) -> bool:
    """True for a finite number that no file contradicts."""
    return entry.row.value is not None and not entry.contradicts


def bounds(row: Row) -> tuple[float, float]:
    """The interval of a row with a value, or the value twice."""
    low, high = row.interval or (row.value, row.value)
    return min(low, row.value), max(high, row.value)


def clearly_better(one: Row, other: Row) -> bool:
    """True if `one` prints another number and its interval lies wholly on the better side."""
    if shown(one.value, one.metric) == shown(other.value, other.metric):
        return False
    (low, high), (other_low, other_high) = bounds(one), bounds(other)
    return high < other_low if metric(one.metric).better == "lower" else low > other_high


def _table(entries: Sequence[Entry]) -> Table:
    first, worse = entries[0].row, -1 if metric(entries[0].row.metric).better == "higher" else 1

    def place(entry: Entry) -> tuple:
        value = math.inf * worse if entry.row.value is None else entry.row.value
        hashes = sorted(entry.row.weights.values())
        return not rankable(entry), value * worse, entry.row.run, entry.row.length or 0, hashes

    several = sorted(entries, key=place)
    good = [entry.row for entry in several if rankable(entry)]
    ranks = {id(row): 1 + sum(clearly_better(one, row) for one in good) for row in good}
    ranks = ranks if len(good) > 1 else {}
    return Table(first, tuple(Place(entry, ranks.get(id(entry.row))) for entry in several))
