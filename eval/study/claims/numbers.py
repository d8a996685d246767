"""The numbers of a study as its claims read them: by run and seed, through one feature network.

Rows of another protocol than that of most runs are left out and named, so that nothing is compared
that does not compare. A tokenizer's generated numbers are those of its one generator.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from vistok.eval.results.compare import protocol_of
from vistok.eval.results.metrics import metric
from vistok.eval.results.rows import Results, Row
from vistok.eval.study.claims.intervals import Interval, interval_of

Seed = int | None
Made = Mapping[str, tuple[str, Seed]]
"""{name of a tokenizer among the results: (run of the study, seed)}."""


@dataclass(frozen=True)
class Number:
    """A value and, where its rows carry one, the interval of its measurement (images, samples),
    which says nothing of other seeds of training."""

    value: float
    interval: Interval | None = None


@dataclass(frozen=True)
class Numbers:
    results: Results
    made: Made
    network: str | None = None
    guidance: float = 1.0
    generator: str | None = None
    left_out: frozenset[tuple[str, Seed]] = frozenset()
    notes: dict[str, None] = field(default_factory=dict)
    """Sentences on rows that were left out, gathered while reading."""

    # -- runs ------------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """Runs of the study that are tokenizers, in order."""
        return tuple(dict.fromkeys(run for run, _ in self.made.values()))

    def seeds(self, run: str) -> tuple[Seed, ...]:
        """Seeds with which a tokenizer was made, without those that are left out."""
        found = [one for one in self.made.values() if one[0] == run and one not in self.left_out]
        return tuple(seed for _, seed in found)

    def common_seeds(self, runs: Iterable[str]) -> tuple[Seed, ...]:
        """Seeds that all these runs have."""
        first, *others = [self.seeds(run) for run in runs] or [()]
        return tuple(seed for seed in first if all(seed in other for other in others))

    @cached_property
    def _of(self) -> dict[tuple[str, Seed], str]:
        return {given: name for name, given in self.made.items()}

    @cached_property
    def _facts(self) -> dict[str, dict[str, Any]]:
        return {run["name"]: run for run in self.results.runs}

    def facts(self, run: str, seed: Seed) -> dict[str, Any]:
        """The record of a tokenizer."""
        return self._facts.get(self._of.get((run, seed), ""), {})

    def generators(self, run: str, seed: Seed) -> list[str]:
        """Names of its generators: those that the claim means."""
        found = (self.results.facts.get("pairs") or {}).get(self._of.get((run, seed), ""), ())
        if self.generator is not None:
            found = [name for name in found if name.rpartition("/")[2] == self.generator]
        return list(found)

    # -- rows ------------------------------------------------------------------------------------

    @cached_property
    def _rows(self) -> dict[str, dict[str, list[Row]]]:
        """{metric: {run: its rows}} through this network, at this guidance."""
        found: dict[str, dict[str, list[Row]]] = {}
        for row in self.results.rows:
            if row.plain and row.value is not None:
                found.setdefault(row.metric, {}).setdefault(row.run, []).append(row)
        return {name: self._one_protocol(name, runs) for name, runs in found.items()}

    def _one_protocol(self, name: str, runs: dict[str, list[Row]]) -> dict[str, list[Row]]:
        every = [row for rows in runs.values() for row in rows]
        networks = {row.features.name for row in every if row.features is not None}
        if self.network in networks:
            every = [r for r in every if r.features is not None and r.features.name == self.network]
        elif len(networks) > 1:
            every = []
        if metric(name).generated and not metric(name).baseline:
            every = [row for row in every if row.guidance in (None, self.guidance)]
        groups: dict[str, list[Row]] = {}
        for row in every:
            agreed = {k: v for k, v in protocol_of(row).items() if k != "seed"}
            key = json.dumps(agreed, sort_keys=True, default=str)
            groups.setdefault(key, []).append(row)
        if not groups:
            return {}
        most = max(groups.values(), key=lambda rows: len({row.run for row in rows}))
        kept = {row.run for row in most}
        if lost := sorted({row.run for row in every} - kept):
            self.notes[f"{name} of {', '.join(lost)} has another protocol and is left out"] = None
        found: dict[str, list[Row]] = {}
        for row in most:
            found.setdefault(row.run, []).append(row)
        return found

    def of_metric(self, name: str) -> list[Row]:
        """All rows of a metric that count here."""
        return [row for rows in self._rows.get(name, {}).values() for row in rows]

    def rows(self, run: str, seed: Seed, name: str) -> dict[int, list[Row]]:
        """{length: rows} of a metric of a tokenizer, or of its generator; several rows of a length
        are of several seeds of the sampling."""
        own = self._of.get((run, seed))
        if own is None or (run, seed) in self.left_out:
            return {}
        rows = self._rows.get(name, {})
        if metric(name).generated:
            having = [one for one in self.generators(run, seed) if one in rows]
            if len(having) > 1:
                self.notes[f"{own} has several generators ({', '.join(having)}): name one"] = None
            found = rows[having[0]] if len(having) == 1 else []
        else:
            found = rows.get(own, [])
        through = {row.features.name for row in found if row.features is not None}
        if self.network is not None and (others := sorted(through - {self.network})):
            self.notes[f"{name} was measured through {', '.join(others)} alone"] = None
        lengths: dict[int, list[Row]] = {}
        for row in found:
            lengths.setdefault(row.length or 0, []).append(row)
        return lengths

    def number(self, run: str, seed: Seed, name: str) -> Number | None:
        """A metric at its full length; None if it was not measured."""
        found = self.rows(run, seed, name)
        return _number(found[max(found)]) if found else None

    def value(self, run: str, seed: Seed, name: str) -> float | None:
        found = self.number(run, seed, name)
        return None if found is None else found.value

    def mean(self, run: str, name: str, seeds: Iterable[Seed] | None = None) -> float | None:
        """The mean over those of the seeds (None: of all) that have the metric."""
        seeds = self.seeds(run) if seeds is None else seeds
        found = [self.value(run, seed, name) for seed in seeds]
        known = [value for value in found if value is not None]
        return sum(known) / len(known) if known else None

    def curve(self, run: str, seed: Seed, name: str) -> dict[int, Number]:
        """{kept tokens: number}, the shortest first."""
        kept = self.facts(run, seed).get("lengths") or {}
        found = {}
        for length, rows in self.rows(run, seed, name).items():
            tokens = (kept.get(str(length)) or {}).get("tokens")
            if tokens:
                found[int(tokens)] = _number(rows)
        return dict(sorted(found.items()))

    # -- sizes -----------------------------------------------------------------------------------

    def size(self, run: str, what: str) -> float | None:
        """Tokens, bits or parameters of a tokenizer, as its own record has them."""
        for seed in self.seeds(run):
            facts = self.facts(run, seed)
            if what == "parameters":
                return facts.get("parameters")
            kept = (facts.get("lengths") or {}).values()
            return max((one[what] for one in kept if one.get(what)), default=None)
        return None


def _number(rows: Sequence[Row]) -> Number:
    """The mean over the seeds of the sampling; of one seed with the interval that it has."""
    if len(rows) == 1:
        return Number(rows[0].value, rows[0].interval)
    values = [row.value for row in rows]
    return Number(sum(values) / len(values), interval_of(values))


def networks_of(results: Results, names: Collection[str]) -> list[str]:
    """The feature networks through which most of these metrics were measured, in order: one that
    saw only some of them cannot read the claim."""
    seen: dict[str, set[str]] = {}
    for row in results.rows:
        if row.metric in names and row.features is not None and row.plain:
            seen.setdefault(row.features.name, set()).add(row.metric)
    most = max(map(len, seen.values()), default=0)
    return [network for network, metrics in seen.items() if len(metrics) == most]
