"""Results files below some folders, each validated; an invalid one is kept with its reason."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from vistok.core.errors import InputError
from vistok.core.text import printable
from vistok.eval.results.metrics import METRICS
from vistok.eval.results.rows import Results, Row

ENDING = "results.json"  # of the names of results files: results.json, NAME.results.json
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Source:
    """A results file: its path below the folder that was named, and what it holds."""

    name: str
    href: str
    """Address of the file, relative to the page."""
    results: Results | None = None
    reason: str = ""
    """One line that says why it is not valid; "" if it is."""


def collect(folders: Sequence[str | Path], page: str | Path) -> tuple[Source, ...]:
    """Every file below the folders whose name ends in results.json, in the order of their paths.

    Hidden folders, and those that links lead to, are not entered; a file that is a link is not
    read. InputError for a folder that is none, or without such a file.

    Args:
        page: the page that links to the files.
    """
    found: dict[Path, Source] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; expected one with results.json files")
        several = f"{folder.name}/" if len(folders) > 1 else ""
        for path in _below(folder):
            name = printable(several + path.relative_to(folder).as_posix())
            found.setdefault(path.absolute(), _read(path, name, _href(path, Path(page))))
    if not found:
        raise InputError(
            f"{', '.join(map(str, folders))}: no file whose name ends in {ENDING}; put those of "
            "evaluations there (vistok eval RUN report=FILE.html writes one)"
        )
    return tuple(sorted(found.values(), key=lambda one: one.name))


def ranked(row: Row) -> bool:
    """True for a number that a leaderboard shows: a metric with a better side that stands for
    itself, measured on a model that learned."""
    known = METRICS.get(row.metric)
    if known is None or not row.plain:
        return False
    return bool(known.better) and not known.baseline and not known.floor


def left_out(results: Results) -> dict[str, int]:
    """{why: how many} of the rows that a leaderboard does not show."""
    reasons: dict[str, Callable[[Row], bool]] = {
        "points of grids and curves": lambda row: not row.plain,
        "baselines and floors": lambda row: (
            row.metric in METRICS and (METRICS[row.metric].baseline or METRICS[row.metric].floor)
        ),
        "without a better side": lambda row: True,
    }
    counts = dict.fromkeys(reasons, 0)
    for row in results.rows:
        if not ranked(row):
            counts[next(why for why, test in reasons.items() if test(row))] += 1
    return {why: count for why, count in counts.items() if count}


def fault(results: Results) -> str:
    """Why the rows of a file cannot be attributed to weights; "" if they can.

    A row must name the sha256 of its weights, and the run that it names must have a record with
    the same one.
    """
    runs = {run["name"]: run for run in results.runs}
    for number, row in enumerate(results.rows):
        if not ranked(row):
            continue
        where, run = f"rows.{number} ({row.metric} of {row.run})", runs.get(row.run)
        if not row.weights:
            return f"{where}: no sha256 of the weights behind it; evaluate again"
        bad = next((one for one in row.weights.values() if not _HASH.fullmatch(one)), None)
        if bad is not None:
            return f"{where}: weights {bad[:20]!r}: expected a sha256 of 64 digits"
        if run is None:
            return f"{where}: runs has no record of this name"
        if row.weights.get(run["kind"]) != run["sha256"]:
            return (
                f"{where}: weights {str(row.weights.get(run['kind']))[:12]}, but the record of the "
                f"run says {run['sha256'][:12]}; they were edited or mixed up"
            )
    return ""


def _below(folder: Path) -> list[Path]:
    found = []
    for place, names, files in os.walk(folder):
        names[:] = sorted(name for name in names if not name.startswith("."))
        found += [Path(place, name) for name in files if name.endswith(ENDING)]
    return found


def _read(path: Path, name: str, href: str) -> Source:
    if path.is_symlink():
        return Source(name, href, reason="a link, which is not followed; send the file itself")
    try:
        results = Results.load(path)
        reason = fault(results)
    except (InputError, OSError) as error:
        return Source(name, href, reason=_short(error, path))
    return Source(name, href, results if not reason else None, printable(reason))


def _short(error: Exception, path: Path) -> str:
    """An error as one line, without the path that stands beside it."""
    said = " ".join(str(error).split()).replace(f"{path}: ", "")
    return printable(said if len(said) <= 300 else f"{said[:300]}...")


def _href(path: Path, page: Path) -> str:
    """A relative address; every letter that could be read as more than a path is quoted."""
    relative = os.path.relpath(path.absolute(), page.absolute().parent)
    return quote(Path(relative).as_posix().encode("utf-8", "surrogateescape"))
