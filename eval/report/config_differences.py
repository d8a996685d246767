"""The config keys in which runs differ: a row for each key, a column for each run.

Trained runs are compared by their whole resolved config, saved models by what their config.json
says of the model. Keys that name the run or its folder are left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vistok.eval.results.rows import Results

_NAMES = ("name", "out")  # of the run itself
_LONG = 48  # characters of a value beyond which its middle is left out


@dataclass(frozen=True)
class Value:
    text: str  # "" where the run has no such key
    whole: str = ""  # all of a long one, for a tooltip


@dataclass(frozen=True)
class Difference:
    """A key and its value in each run."""

    before: str  # the path to the key, with its last dot
    key: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Differences:
    """Table of the keys in which the runs of one kind differ."""

    kind: str
    runs: tuple[str, ...]
    rows: tuple[Difference, ...]
    only: tuple[Difference, ...]
    """Keys that some runs lack and that have one value in all others: those of their parts."""


def config_differences(results: Results) -> list[Differences]:
    """A table for tokenizers and one for generators, where at least two of a kind have configs."""
    found = []
    for kind in dict.fromkeys(run["kind"] for run in results.runs):
        configs = {run["name"]: _config(run, kind) for run in results.runs if run["kind"] == kind}
        configs = {name: config for name, config in configs.items() if config}
        if len(configs) > 1:
            rows = _rows(list(configs.values()))
            apart = [_apart(row) for row in rows]
            main = tuple(row for row, own in zip(rows, apart, strict=True) if own)
            only = tuple(row for row, own in zip(rows, apart, strict=True) if not own)
            found.append(Differences(kind, tuple(configs), main, only))
    return found


def _config(run: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """{dotted key: value} of a run's config."""
    tree = run.get("config")
    if not tree:  # a saved model: the part of a training config that its config.json holds
        tree = {"task": {kind: run.get("model") or {}}}
    return {key: value for key, value in _leaves(tree) if key not in _NAMES}


def _leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value): mappings and lists of mappings are opened, other lists are values."""
    if isinstance(tree, Mapping) and tree:
        items = tree.items()
    elif isinstance(tree, list) and any(isinstance(one, Mapping) for one in tree):
        items = enumerate(tree)
    else:
        yield name, tree
        return
    for key, value in items:
        yield from _leaves(value, f"{name}.{key}" if name else str(key))


def _rows(configs: list[dict[str, Any]]) -> tuple[Difference, ...]:
    rows = []
    for key in _merged(configs):
        values = [_value(config[key]) if key in config else Value("") for config in configs]
        if len({value.whole or value.text for value in values}) > 1:
            before, dot, last = key.rpartition(".")
            rows.append(Difference(before + dot, last, tuple(values)))
    return tuple(rows)


def _apart(row: Difference) -> bool:
    """True if runs set the key to different values, or one lacks a whole part (its kind)."""
    known = {value.whole or value.text for value in row.values if value.text}
    return len(known) > 1 or row.key == "kind"


def _merged(configs: list[dict[str, Any]]) -> list[str]:
    """All keys; those that only a later config has stand behind the one that is before them."""
    keys: list[str] = []
    for config in configs:
        place, known = 0, set(keys)
        for key in config:
            if key in known:
                place = keys.index(key) + 1
            else:
                keys.insert(place, key)
                place += 1
    return keys


def _value(value: Any) -> Value:
    """A value as YAML has it, on one line."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = text or '""'
    if len(text) <= _LONG:
        return Value(text)
    half = _LONG // 2 - 1
    return Value(f"{text[:half]}…{text[-half:]}", text)
