"""Plain text of YAML -> a value, as it is typed (the core schema of YAML 1.2, decimals only).

- `null`, `~` and nothing are None; `true` and `false` are booleans, spelled so.
- Decimals are numbers: `10`, `010` (ten), `1e3`, `.5`. One that a number would not print as it was
  typed keeps its text, so that a text field can hold 0042 or 1.50.
- All else is text: yes, 0x10, 1_000, 12:30:00, 2024-01-01.
"""

from __future__ import annotations

import re
from typing import Any

from vistok.core.errors import InputError

_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_ENDLESS = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")  # number fields refuse them
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}
_DIGITS = 1000  # of a number; Python refuses to read integers of many more


class _Typed:
    """A number that prints as it was typed."""

    text: str

    def __new__(cls, text: str) -> _Typed:
        endless = _ENDLESS.fullmatch(text)
        number = super().__new__(cls, text.replace(".", "") if endless else text)
        number.text = text
        return number

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__

    def __getnewargs__(self) -> tuple[str]:
        return (self.text,)


class TypedInt(_Typed, int):
    """An integer that prints as it was typed: 0042."""


class TypedFloat(_Typed, float):
    """A float that prints as it was typed: 1e-4."""


def scalar(text: str) -> Any:
    """The value of plain text, which is not in quotes."""
    if text in _WORDS:
        return _WORDS[text]
    if _ENDLESS.fullmatch(text):
        return TypedFloat(text)
    if len(text) <= _DIGITS:
        for pattern, kind, typed in ((_INTEGER, int, TypedInt), (_FLOAT, float, TypedFloat)):
            if pattern.fullmatch(text):
                return kind(text) if str(kind(text)) == text else typed(text)
    return text


def tagged(text: str, kind: str) -> Any:
    """The value of text that says its type (`!!int 010`); InputError if it is none of that type."""
    value = text if kind == "str" else scalar(text)
    kinds = {"str": str, "int": int, "float": (int, float), "bool": bool, "null": type(None)}
    expected = kinds.get(kind)
    if (
        expected is None
        or not isinstance(value, expected)
        or (isinstance(value, bool) and kind != "bool")
    ):
        raise InputError(f"got {text!r} as !!{kind}; expected plain values, decimals or text")
    return float(value) if kind == "float" else value


def plain(tree: Any) -> Any:
    """Plain data without the texts of its numbers, for what is written into other files."""
    if isinstance(tree, dict):
        return {key: plain(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [plain(value) for value in tree]
    if isinstance(tree, TypedInt):
        return int(tree)
    return float(tree) if isinstance(tree, TypedFloat) else tree
