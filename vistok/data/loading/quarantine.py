"""Broken samples in training: named once, counted always, and too many of them stop the run.

Samples that can be used, but of a file that is odd (a video of which a part cannot be decoded), are
named once too, in a file of their own: they count as good.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path

from vistok.config.bounded import parse_json
from vistok.data.base import DataError, text_of

# The share is taken over at least so many rows: two bad ones in the first hundred are no trend.
_SETTLED = 1000

log = logging.getLogger(__name__)


class Quarantine:
    """Keeps `quarantine.jsonl` (one {"name", "reason"} per line) in `folder` (None: only the log).

    Training stops when more than `max_share` of max(rows seen, 1000) were bad (0: at the first).
    """

    def __init__(self, folder: str | Path | None, max_share: float) -> None:
        self.path = None if folder is None else Path(folder) / "quarantine.jsonl"
        self.max_share, self.seen, self.bad = max_share, 0, 0
        self._names = {name for (name,) in _known(self.path, "name")}
        self._remarks = None if self.path is None else self.path.with_name("remarks.jsonl")
        self._remarked = _known(self._remarks, "name", "note")

    def count(self, rows: int, bad: int, reasons: list[tuple[str, str]]) -> None:
        """`bad` of the next `rows` rows were replaced; `reasons`: (name, reason) of what failed."""
        self.seen += rows
        self.bad += bad
        for name, reason in reasons:
            self._note(name, reason)
        if self.bad > self.max_share * max(self.seen, _SETTLED):
            where = f"; see {self.path} for names and reasons" if self.path else ""
            raise DataError(
                f"{self.bad} of {self.seen} samples ({self.bad / self.seen:.1%}) cannot be used, "
                f"more than max_bad_share={self.max_share}{where}; mend or remove these files, or "
                f"raise max_bad_share"
            )

    def remark(self, notes: Iterable[tuple[str, str]]) -> None:
        """Say each (name, what is odd about it) once, and keep it in `remarks.jsonl`."""
        for name, note in notes:
            if (name, note) in self._remarked:
                continue
            self._remarked.add((name, note))
            log.warning("odd sample %s: %s", name, note)
            _append(self._remarks, {"name": name, "note": note})

    def leave_out(self, reasons: list[tuple[str, str]]) -> None:
        """Note samples that nothing replaces, (name, reason); however many, nothing stops."""
        for name, reason in reasons:
            self._note(name, reason, "it is left out")

    def _note(
        self,
        name: str,
        reason: str,
        effect: str = "the next good sample of the order takes its place",
    ) -> None:
        if name in self._names:
            return
        self._names.add(name)
        log.warning("bad sample %s: %s; %s", name, reason, effect)
        _append(self.path, {"name": name, "reason": reason})


def _append(path: Path | None, line: dict[str, str]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _known(path: Path | None, *keys: str) -> set[tuple[str, ...]]:
    """These values of each line of an earlier part of this run; a line that a crash cut off is
    passed over."""
    known = set()
    if path is not None and path.is_file():
        for line in text_of(path).splitlines():
            try:
                row = parse_json(line, path)
                known.add(tuple(row[key] for key in keys))
            except (ValueError, KeyError, TypeError):
                continue
    return known
