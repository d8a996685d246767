"""Results of earlier evaluations beside new ones: rows are taken over as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vistok.core.errors import InputError
from vistok.eval.results.rows import Results


def check_names(names: Sequence[str], earlier: Sequence[Results]) -> None:
    """ValueError if two of the results hold a run of the same name."""
    seen = set(names)
    for results in earlier:
        for run in results.runs:
            if run["name"] in seen:
                raise InputError(
                    f"two results hold a run named '{run['name']}'; leave one out, or evaluate "
                    "both folders together, which gives them different names"
                )
            seen.add(run["name"])


def joined(results: Results, earlier: Sequence[Results]) -> Results:
    """One Results of all; facts that are not of single runs stay those of the first."""
    for other in earlier:
        results = Results(
            rows=results.rows + other.rows,
            runs=results.runs + other.runs,
            facts={
                name: _fact(results.facts.get(name), other.facts.get(name))
                for name in dict.fromkeys((*results.facts, *other.facts))
                if name != "report"  # the files of the other report are its own
            },
        )
    return results


def _fact(own: Any, other: Any) -> Any:
    """Lists (images, skipped) and what is kept by run are joined."""
    if isinstance(own, list) and isinstance(other, list):
        return own + other
    if isinstance(own, dict) and isinstance(other, dict):
        return {**other, **own}
    return other if own is None else own
