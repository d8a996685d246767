"""The log of a run, metrics.jsonl, as evaluation shows it: curves with gaps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from vistok.config.bounded import parse_json
from vistok.config.errors import UserError
from vistok.data.base import text_of


class RunError(UserError, ValueError):
    """A run that cannot be evaluated; the message is one line."""


def read_history(path: Path) -> tuple[dict[str, Any], ...]:
    """Lines of metrics.jsonl; a last line that a kill cut off is left out."""
    if not path.is_file():
        return ()
    lines = text_of(path).splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(parse_json(line, path, parse_constant=_gap, parse_float=_gap))
        except ValueError:
            if number < len(lines):
                raise RunError(f"{path}: line {number} is not JSON; is the file damaged?") from None
    return tuple(row for row in rows if isinstance(row, dict))


def _gap(text: str) -> float | None:
    """A number of a curve; None, a gap, where it is not finite."""
    value = float(text)
    return value if math.isfinite(value) else None
