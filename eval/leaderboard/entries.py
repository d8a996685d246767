"""Rows of many files -> entries: a model's number once, with every file that holds it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from vistok.core.text import printable
from vistok.eval.leaderboard.collect import Source, ranked
from vistok.eval.results.compare import protocol_of
from vistok.eval.results.metrics import metric
from vistok.eval.results.rows import Row

UNSTATED = "not stated"  # license


@dataclass(frozen=True)
class Entry:
    """One model at one length, measured by one protocol."""

    row: Row
    """The row that is shown: of the newest file."""
    sources: tuple[tuple[Source, Row], ...]
    """Every file that holds it, with its row there."""
    tokens: int | None
    whole_tokens: int | None
    """Tokens of the whole sequence."""
    bits: int | None
    """Stored bits of the kept codes; None for continuous tokens."""
    license: str
    tokenizer: str
    """Of a generator: the name of the tokenizer whose tokens it makes; else ""."""

    @property
    def whole(self) -> bool:
        """True unless it is measured at a shortened sequence."""
        return self.tokens is None or self.tokens == self.whole_tokens

    @property
    def contradicts(self) -> bool:
        """True if files give different numbers for the same weights and protocol: more than one
        unit of the last printed digit apart."""
        known = metric(self.row.metric)
        unit = known.scale * 10**-known.digits
        values = [row.value for _, row in self.sources]
        if None in values:
            return len({(row.value, row.not_finite) for _, row in self.sources}) > 1
        return max(values) - min(values) > unit * (1 + 1e-9)

    @property
    def media(self) -> str:
        return "images" if self.row.clip is None else "clips"


def identity(row: Row) -> str:
    """Text that is the same for rows of one protocol alone, as `compare.differences` has it."""
    return json.dumps(protocol_of(row), sort_keys=True, default=str)


def entries_of(sources: Sequence[Source], metrics: Sequence[str] = ()) -> list[Entry]:
    """The entries of all valid files, in the order of their files and rows.

    Args:
        metrics: names of those that are wanted; () = all.
    """
    found: dict[tuple, list[tuple[Source, Row, dict[str, Any]]]] = {}
    for source in sources:
        results = source.results
        if results is None:
            continue
        runs = {run["name"]: _facts(run, results.facts) for run in results.runs}
        for row in results.rows:
            if ranked(row) and (not metrics or row.metric in metrics):
                key = (identity(row), tuple(sorted(row.weights.items())), row.length)
                found.setdefault(key, []).append((source, row, runs[row.run]))
    return [_entry(several) for several in found.values()]


def _entry(several: Sequence[tuple[Source, Row, dict[str, Any]]]) -> Entry:
    newest = max(several, key=lambda one: one[1].date)  # the first of equal ones
    row, facts = newest[1], newest[2]
    length = facts["whole"] if row.length is None else str(row.length)
    at = facts["lengths"].get(length, {})
    bits = at.get("bits")
    return Entry(
        row,
        _once((source, row) for source, row, _ in several),
        *(None if n is None else int(n) for n in (at.get("tokens"), facts["tokens"])),
        None if not bits or not facts["discrete"] else int(bits),
        facts["license"],
        facts["tokenizer"],
    )


def _once(pairs: Iterable[tuple[Source, Row]]) -> tuple[tuple[Source, Row], ...]:
    """Files in order; one that repeats a number is listed once for each different value."""
    seen, kept = set(), []
    for source, row in pairs:
        key = (source.name, row.value, row.not_finite)
        if key not in seen:
            seen.add(key)
            kept.append((source, row))
    return tuple(kept)


def _facts(run: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """What a leaderboard shows of a run."""
    lengths = run.get("lengths") or {}
    whole = max(lengths, key=int, default="")
    spec = run.get("spec") or {}
    given = run.get("license") or (run.get("model") or {}).get("license")
    pairs = facts.get("pairs") or {}
    owners = (name for name, owned in pairs.items() if run["name"] in owned)
    return {
        "lengths": lengths,
        "whole": whole,
        "tokens": lengths.get(whole, {}).get("tokens"),
        "discrete": bool(spec.get("vocab")),
        "license": printable(given) if isinstance(given, str) and given.strip() else UNSTATED,
        "tokenizer": next(owners, "") if run["kind"] == "generator" else "",
    }
