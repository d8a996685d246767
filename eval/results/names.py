"""Names of runs that a user chose, in the place of those of their folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vistok.core.errors import InputError
from vistok.eval.results.rows import Results, Row


def chosen_names(
    wanted: Sequence[str] | Mapping[str, str], given: Sequence[str], known: Sequence[str]
) -> dict[str, str]:
    """{name of a run: its new name} for the key `name` of an evaluation; InputError, one line.

    Args:
        wanted: new names in the order of `given`, or {old: new}.
        given: names of the runs of the command line, in its order.
        known: names of all runs, those of earlier results among them.
    """
    if isinstance(wanted, Mapping):
        for old in wanted:
            if old not in known:
                raise InputError(f"name={old}: no such run; the runs are {', '.join(known)}")
        found = dict(wanted)
    elif wanted and len(wanted) != len(given):
        raise InputError(
            f"name={list(wanted)}: {len(wanted)} names for {len(given)} runs "
            f"({', '.join(given)}); give one for each, or name={{OLD: NEW}}"
        )
    else:
        found = dict(zip(given, wanted, strict=True)) if wanted else {}
    after = [found.get(name, name) for name in known]
    for name in after:
        if not name.strip() or after.count(name) > 1:
            raise InputError(f"name={name!r}: expected a name of its own for each run")
    return {old: new for old, new in found.items() if old != new}


def renamed(results: Results, names: Mapping[str, str]) -> Results:
    """Results whose runs have other names, wherever a run is named (probes below theirs too)."""
    if not names:
        return results
    rows = [renamed_row(row, names) for row in results.rows]
    runs = [{**run, "name": renamed_one(run["name"], names)} for run in results.runs]
    return Results(rows=tuple(rows), runs=tuple(runs), facts=_walk(results.facts, names))


def renamed_row(row: Row, names: Mapping[str, str]) -> Row:
    """A row whose run has another name, in its note too."""
    return row.model_copy(
        update={"run": renamed_one(row.run, names), "note": renamed_note(row.note, names)}
    )


def renamed_one(name: str, names: Mapping[str, str]) -> str:
    """The new name of a run, or of one below it: a probe is TOKENIZER/RECIPE."""
    if name in names:
        return names[name]
    owner = max((old for old in names if name.startswith(f"{old}/")), key=len, default="")
    return names[owner] + name.removeprefix(owner) if owner else name


def renamed_note(note: str, names: Mapping[str, str]) -> str:
    """A row's note, which names a run as "tokens of NAME" at its end or before "; "."""
    start, mark, rest = note.partition("tokens of ")
    name, semicolon, tail = rest.partition("; ")
    return start + mark + renamed_one(name, names) + semicolon + tail if mark else note


_BY_RUN = ("pairs", "data", "codebook", "order", "adaptive_length")  # facts that are kept by run


def _walk(facts: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Facts with new names: as keys of what is kept by run, and in fields called `run`."""
    found = dict(facts)
    for fact in _BY_RUN:
        if isinstance(found.get(fact), Mapping):
            found[fact] = {renamed_one(run, names): one for run, one in found[fact].items()}
    if found.get("pairs"):
        found["pairs"] = {
            run: [renamed_one(one, names) for one in owned] for run, owned in found["pairs"].items()
        }
    for fact in ("image_grids", "skipped"):
        found[fact] = [
            {**one, "run": renamed_one(one["run"], names)} for one in found.get(fact, ())
        ]
    return found
