"""Signs that numbers do not measure what their names say: networks that the training looked
through, and generators that do not beat their untrained twins."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from vistok.config.overrides import leaves
from vistok.eval.results.metrics import METRICS, metric
from vistok.eval.results.text import few_reasons
from vistok.eval.study.claims.numbers import Numbers, Seed
from vistok.storage.weights import sha256

_UNTRAINED = "-untrained"


def seen_in_training(
    run: Mapping[str, Any], runs: Collection[Mapping[str, Any]], measures: str | None = None
) -> set[str]:
    """Names of the networks that the losses of a run, and of those it came from, look through.

    Args:
        measures: sha256 of the weights that measure. A loss that names a file of other weights
            looks through another network of the same plan, and is left out.
    """
    names: set[str] = set()
    waiting, seen = [run], set()
    by_hash = {one["sha256"]: one for one in runs if one.get("sha256")}
    while waiting:
        one = waiting.pop()
        if one.get("sha256") in seen:
            continue
        seen.add(one.get("sha256"))
        losses = ((one.get("config") or {}).get("task") or {}).get("losses")
        texts = {path: value for path, value in leaves(losses, lists=True) if _is_text(value)}
        for path, value in texts.items():
            place, _, key = path.rpartition(".")
            other = measures and _other_weights(texts.get(f"{place}.weights_path"), measures)
            if key == "kind" or (key == "network" and not other):
                names.add(value)
        for stage in (one.get("model") or {}).get("lineage") or ():
            waiting += [by_hash[p["sha256"]] for p in stage["parents"] if p["sha256"] in by_hash]
    return names


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _other_weights(path: str | None, measures: str) -> bool:
    """True if a weight file is there and is not the one that measures."""
    return path is not None and Path(path).is_file() and sha256(path) != measures


def shared_with_training(numbers: Numbers, compared: Collection[str]) -> list[str]:
    """The compared runs whose training looked through the network of these numbers."""
    runs, rows = numbers.results.runs, numbers.results.rows
    own = (row.features.sha256 for row in rows if row.features is not None
           and row.features.name == numbers.network)  # fmt: skip
    measures, found = next(own, None), []
    for run in compared or numbers.names:
        facts = [numbers.facts(run, seed) for seed in numbers.seeds(run)]
        if any(numbers.network in seen_in_training(one, runs, measures) for one in facts):
            found.append(run)
    return found


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
    for name in ("pFID-v1", "pFID-v1-quick"):
        if name not in measured:
            continue
        sides = {run: (numbers.mean(run, "rFID"), numbers.mean(run, name))
                 for run in compared or numbers.names}  # fmt: skip
        nearer = [run for run, (r, p) in sides.items() if None not in (r, p) and p <= r]
        if nearer:
            said.append(
                f"{name} is not above rFID for {', '.join(nearer)}: there swapped codes bring "
                "blurred images nearer to real ones, and it is no measure of robustness."
            )
    return said


def few_images(numbers: Numbers, measured: Collection[str]) -> list[str]:
    """Sentences on numbers that rest on few images."""
    rows = [row for row in numbers.results.rows if row.metric in measured and row.plain]
    return [f"{why}; the order may be that of chance." for why in few_reasons(rows)]
