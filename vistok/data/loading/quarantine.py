"""Broken samples in training: named once, counted always, and too many of them stop the run."""

from __future__ import annotations

import json
import logging
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
        self._names = self._known()

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
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"name": name, "reason": reason}) + "\n")

    def _known(self) -> set[str]:
        """Names of an earlier part of this run; a line that a crash cut off is passed over."""
        names = set()
        if self.path is not None and self.path.is_file():
            for line in text_of(self.path).splitlines():
                try:
                    names.add(parse_json(line, self.path)["name"])
                except (ValueError, KeyError, TypeError):
                    continue
        return names
