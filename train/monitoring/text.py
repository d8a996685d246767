"""Text for a terminal: facts in two columns, amounts with three digits."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

GAP = 14  # columns of the names of facts


def fact(name: str, value: str) -> str:
    return f"{name:{GAP}}  {value}".rstrip()


def fit(lines: Iterable[str], width: int) -> Iterator[str]:
    """Lines that are too long go on below their value."""
    below = {"subsequent_indent": " " * (GAP + 2), "break_on_hyphens": False}
    for line in lines:
        yield from textwrap.wrap(line, width, **below) if len(line) > width else [line]


def amount(value: float) -> str:
    """43904925696 -> "43.9 G": three digits and a decimal prefix."""
    if not value:
        return "-"
    for prefix in ("", "k", "M", "G", "T", "P", "E", "Z"):
        if abs(value) < 999.5 or prefix == "Z":
            break
        value /= 1000
    return f"{_three(value)} {prefix}"


def size(count: float) -> str:
    """Bytes -> "1.21 GiB"."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 999.5 or unit == "TiB":
            break
        count /= 1024
    return f"{_three(count)} {unit}"


def count(value: int) -> str:
    return f"{value:,}" if value else "-"


def duration(seconds: float) -> str:
    """93784 -> "1 d 2 h", 75 -> "1 min 15 s": the two largest units."""
    rest, parts = max(0, round(seconds)), []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        number, rest = divmod(rest, length)
        if number or parts:
            parts.append(f"{number} {unit}")
    return " ".join(part for part in parts[:2] if not part.startswith("0 ")) or "0 s"


def _three(value: float) -> str:
    """Three digits, or as many as the integer part has."""
    return f"{value:.0f}" if value >= 99.95 or value == int(value) else f"{value:.3g}"
