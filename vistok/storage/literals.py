"""Settings in the header of a safetensors file, as Python literals: `{"levels": "[8, 8, 5]"}`.

A literal is parsed, never evaluated, and within bounds: so long, nested so deep.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from vistok.config.bounded import check_depth
from vistok.core.errors import InputError

LONGEST = 2**18  # characters of one value


def header_settings(path: Path) -> dict[str, Any] | None:
    """The header's metadata with its literals parsed; None unless one of them is a dict.

    Values that are no literals stay text.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError):
        return None  # whoever reads the tensors says what is wrong
    found = {key: literal(value) for key, value in metadata.items()}
    return found if any(isinstance(value, dict) for value in found.values()) else None


def literal(text: str) -> Any:
    """The value of a Python literal; the text itself if it is none, or is beyond the bounds."""
    if len(text) > LONGEST:
        return text
    try:
        value = ast.literal_eval(text)
        check_depth(value, "literal")
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError, InputError):
        return text
    return value
