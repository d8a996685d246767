"""Signs that numbers do not measure what their names say: networks that the training looked
through, and generators that do not beat their untrained twins."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from vistok.eval.results.metrics import METRICS, metric
from vistok.eval.results.text import few_reasons
from vistok.eval.study.claims.numbers import Numbers, Seed
from vistok.storage.weights import sha256

_UNTRAINED = "-untrained"


Looked = tuple[str, str | None]
"""Name of a network, and the file of its weights if the config names one."""


def networks_in(losses: Any) -> set[Looked]:
    """The networks that losses look through: every `network` or `kind` below them, with the
    `weights_path` that stands beside."""
    if isinstance(losses, Mapping):
        names = [losses[key] for key in ("network", "kind") if isinstance(losses.get(key), str)]
        found = {(name, losses.get("weights_path")) for name in names}
        return found.union(*map(networks_in, losses.values()))
    if isinstance(losses, list | tuple):
        return set().union(*map(networks_in, losses))
    return set()


def seen_in_training(run: Mapping[str, Any], runs: Collection[Mapping[str, Any]]) -> set[Looked]:
    """The networks that the losses of a run, and of those it came from, look through."""
    found: set[Looked] = set()
    waiting, seen = [run], set()
    by_hash = {one["sha256"]: one for one in runs if one.get("sha256")}
    while waiting:
        one = waiting.pop()
        if one.get("sha256") in seen:
            continue
        seen.add(one.get("sha256"))
        found |= networks_in(((one.get("config") or {}).get("task") or {}).get("losses"))
        for stage in (one.get("model") or {}).get("lineage") or ():
            waiting += [by_hash[p["sha256"]] for p in stage["parents"] if p["sha256"] in by_hash]
    return found


def shared_with_training(
    numbers: Numbers, compared: Collection[str], measured: Collection[str]
) -> dict[str, list[str]]:
    """{network: the compared runs whose training looked through it} of the networks through which
    these numbers were measured."""
    runs = numbers.results.runs
    networks: dict[str, set[str]] = {}
    for row in (row for name in measured for row in numbers.of_metric(name)):
        if row.features is not None:
            networks.setdefault(row.features.name, set()).add(row.features.sha256)
    found: dict[str, list[str]] = {}
    for run in compared or numbers.names:
        facts = [numbers.facts(run, seed) for seed in numbers.seeds(run)]
        looked = set().union(*(seen_in_training(one, runs) for one in facts))
        for name, digests in networks.items():
            if any(_is_network(one, name, digests) for one in looked):
                found.setdefault(name, []).append(run)
    return found


def _is_network(looked: Looked, name: str, digests: Collection[str]) -> bool:
    """True if a loss looks through that network, as far as can be told: weights of a file that is
    there are told apart by their hash, all others by the name."""
    own, file = looked
    if file is not None and Path(file).is_file():
        return sha256(file) in digests
    return own == name


def not_learned(
    numbers: Numbers, compared: Collection[str], measured: Collection[str]
) -> set[tuple[str, Seed]]:
    """Runs, by seed, whose generator is not better than the same network with fresh weights; looked
    at where the claim compares the metric that both have."""
    found = set()
    for name in measured:
        if name + _UNTRAINED not in METRICS:
            continue
        lower = metric(name).better != "higher"
        for run in compared or numbers.names:
            for seed in numbers.seeds(run):
                own = numbers.value(run, seed, name)
                fresh = numbers.value(run, seed, name + _UNTRAINED)
                if None not in (own, fresh) and (own >= fresh if lower else own <= fresh):
                    found.add((run, seed))
    return found


def not_above(numbers: Numbers, compared: Collection[str], measured: Collection[str]) -> list[str]:
    """Sentences on runs whose pFID is not above their rFID."""
    said = []
    for name in measured:
        if not name.startswith("pFID"):
            continue
        sides = {
            run: (numbers.mean(run, "rFID"), numbers.mean(run, name))
            for run in compared or numbers.names
        }
        nearer = [run for run, (r, p) in sides.items() if None not in (r, p) and p <= r]
        if nearer:
            said.append(
                f"{name} is not above rFID for {', '.join(nearer)}: there swapped codes bring "
                "blurred images nearer to real ones, and it is no measure of robustness."
            )
    return said


def below_floor(numbers: Numbers, measured: Collection[str]) -> list[str]:
    """Sentences on numbers below what real images have, through this network."""
    said = []
    for name in measured:
        rows = numbers.of_metric(name)
        if low := sorted({row.run for row in rows if row.below_floor}):
            said.append(
                f"{name} of {', '.join(low)} is below the distance of real images to the reference "
                "at the same count: a model that copies, or a reference that does not fit."
            )
    return said


def few_images(numbers: Numbers, measured: Collection[str]) -> list[str]:
    """Sentences on numbers that rest on few images."""
    rows = [row for row in numbers.results.rows if row.metric in measured and row.plain]
    return [f"{why}; the order may be that of chance." for why in few_reasons(rows)]
