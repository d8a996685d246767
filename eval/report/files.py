"""The files of a report: their names, and which of them may be replaced.

A report is a page (.html), its tables (.md, .tex, .csv) and its numbers (results.json, or
NAME.results.json where that is of another report). The numbers record the page and the sha256 of
every other file, so that a later evaluation knows its own earlier version: that alone it replaces.
Links are never written through.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vistok.core.errors import InputError
from vistok.eval.results.rows import Results
from vistok.storage.files import replacing, unwritten

NUMBERS = "results.json"
_REMEDY = "name another report, move it away, or add overwrite=true"


@dataclass(frozen=True)
class ReportFiles:
    """Paths of a report's files."""

    page: Path
    numbers: Path

    @property
    def tables(self) -> dict[str, Path]:
        """{"md", "tex", "csv": path}."""
        return {kind: self.page.with_suffix(f".{kind}") for kind in ("md", "tex", "csv")}

    @property
    def all(self) -> tuple[Path, ...]:
        return (self.numbers, *self.tables.values(), self.page)


def place(
    page: str | Path,
    runs: Collection[str],
    protocols: Collection[str] | None = None,
    overwrite: bool = False,
) -> ReportFiles:
    """The files of a report; InputError, one line, if something lies there that is not its own.

    Args:
        page: the .html file.
        runs: `run_key` of what the report is about: an earlier version of other runs stays.
        protocols: names of what is measured; an earlier version of others stays. None = not known.
        overwrite: True: replace them anyway. The numbers of another report stay even then.
    """
    page = Path(page)
    named, earlier = page.with_name(f"{page.stem}.{NUMBERS}"), None
    for numbers in (named, page.with_name(NUMBERS)):
        earlier = _version_of(page, numbers)
        if earlier is not None:
            break
    else:
        plain = page.with_name(NUMBERS)
        numbers = named if _lies_there(plain) else plain
    files = ReportFiles(page, numbers)
    for path in files.all:
        if path.is_dir():
            raise InputError(f"{path}: a folder; name another report")
        if _lies_there(path) and not overwrite:
            why = _foreign(path, numbers, earlier)
            if why:
                raise InputError(f"{path}: {why}; {_REMEDY}")
    lost = [] if earlier is None or overwrite else _lost(earlier, runs, protocols)
    if lost:
        raise InputError(
            f"{page}: the report there has {', '.join(lost)}, which this one leaves out; {_REMEDY}"
        )
    return files


def write(files: ReportFiles, results: Results, texts: Mapping[Path, str]) -> None:
    """Write the texts, and the numbers with the record of them; all are renamed into place at the
    end. UnwrittenError if the disk refuses."""
    digests = {path.name: _digest(text.encode()) for path, text in texts.items()}
    facts = {**results.facts, "report": {"page": files.page.name, "files": digests}}
    whole = results.model_copy(update={"facts": facts})
    path = files.page
    try:
        with ExitStack() as stack:  # which ends in reverse: the record is renamed last
            for path, text in {files.numbers: whole.json_text(), **texts}.items():
                stack.enter_context(replacing(path)).write_bytes(text.encode())
    except OSError as error:
        raise unwritten(path, error) from None


def run_key(run: Mapping[str, Any]) -> str:
    """What tells a run from others in two reports: its folder, or its name where it has none."""
    folder = run.get("folder")
    return str(run["name"]) if not folder else str(Path(folder).resolve())


def check_replaceable(
    path: str | Path, own: Callable[[Path], bool], overwrite: bool = False
) -> None:
    """InputError, one line, if a file lies at `path` that `own` does not know as replaceable."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: a folder; expected the name of a file")
    if overwrite or not _lies_there(path):
        return
    if path.is_symlink() or not own(path):
        what = "a link" if path.is_symlink() else "it was not written by this command"
        raise InputError(f"{path}: {what}; name another file, move it away, or add overwrite=true")


def _lies_there(path: Path) -> bool:
    """True for dangling links too."""
    return path.is_symlink() or path.exists()


def _version_of(page: Path, numbers: Path) -> Results | None:
    """The numbers of an earlier version of the page; None if the file is of something else."""
    if numbers.is_symlink() or not numbers.is_file():
        return None
    try:
        found = Results.load(numbers)
    except InputError:
        return None
    record = found.facts.get("report")
    return found if record is not None and record["page"] == page.name else None


def _foreign(path: Path, numbers: Path, earlier: Results | None) -> str:
    """Why a file is not of the earlier version of the report; "" if it is."""
    if path.is_symlink():
        return f"a link to {path.readlink()}, which is not written through"
    if earlier is None:
        return "it was there before this report"
    if path == numbers:
        return ""
    written = earlier.facts["report"]["files"].get(path.name)
    if written is None:
        return "it was there before this report"
    return "" if _digest(path.read_bytes()) == written else "it was edited since it was written"


def _lost(earlier: Results, runs: Collection[str], protocols: Collection[str] | None) -> list[str]:
    """What the earlier version has and a new one of these runs and protocols would not have.
    Probes are not looked at: they come with their tokenizer."""
    pairs = earlier.facts.get("pairs") or {}
    probes = {
        name for owner, names in pairs.items() for name in names if name.startswith(f"{owner}/")
    }
    left = [
        run["name"]
        for run in earlier.runs
        if run["name"] not in probes and run_key(run) not in runs
    ]
    if protocols is not None:
        before = (earlier.facts.get("config") or {}).get("protocols") or ()
        left += [f"protocol {name}" for name in before if name not in protocols]
    return left


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
