"""vistok: compose, train, load and measure discrete image and video tokenizers.

Importing vistok does no work: names below are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.2.0"

_LAZY = {
    "Tokenizer": "vistok.tokenizer",
    "TokenizerConfig": "vistok.tokenizer",
    "Tokens": "vistok.tokens",
    "TokenSpec": "vistok.tokens",
    "Batch": "vistok.core.records",
    "Condition": "vistok.core.records",
    "Draws": "vistok.core.draws",
    # From there, since the config of a saved generator may hold parts of a tokenizer.
    "Generator": "vistok.pretrained.base",
}

_MODULES = ("pretrained",)

__all__ = ["__version__", *_LAZY, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"vistok.{name}")
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'vistok' has no attribute '{name}'; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
