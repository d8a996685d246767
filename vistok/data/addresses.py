"""Addresses that a data config names: data that would be fetched from another machine.

The config of a run may have come with the run of somebody else, and opening an address tells its
owner of this machine. So one that a run's file names is opened only if the user types it too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from vistok.config import Config, ConfigError
from vistok.config.overrides import leaves, text_of

HUB = "hf:"  # begins the name of a data set of the hub
_ADDRESS = re.compile(r"(?!file:)\b[A-Za-z][A-Za-z0-9+.-]+://")


def addresses(config: Config) -> dict[str, tuple[str, ...]]:
    """{key: what it names on other machines} of a data config: URLs, data sets of the hub."""
    found = {
        key: tuple(text for text in _texts(value) if _ADDRESS.search(text) or text.startswith(HUB))
        for key, value in _keys(config.model_dump(mode="json"))
    }
    return {key: texts for key, texts in found.items() if texts}


def _keys(tree: dict[str, Any], below: str = "") -> Iterator[tuple[str, Any]]:
    """(key, value) of a data config; sets.0.KEY and val.KEY of the data sets of a mix."""
    for key, value in tree.items():
        inner = value if isinstance(value, list) else [value]
        if not inner or not all(isinstance(one, dict) and "kind" in one for one in inner):
            yield f"{below}{key}", value
            continue
        for number, one in enumerate(inner):
            place = f"{key}.{number}" if isinstance(value, list) else key
            yield from _keys(one, f"{below}{place}.")


def check_addresses(config: Config, source: object, typed: Any = None, place: str = "data") -> None:
    """ConfigError if a data config out of the file `source` names an address that is not typed.

    Args:
        typed: what the user typed: the tree of the `data.KEY=VALUE` words.
        place: of that tree.
    """
    known = set(_texts(typed))
    for key, texts in addresses(config).items():
        if not known.issuperset(texts):
            one = texts[0] if len(texts) == 1 else list(texts)
            raise ConfigError(
                f"{source}: {place}.{key} names {', '.join(texts[:3])}; an address that a run's "
                "file names is opened only at your word: if you trust it, add "
                f"'{place}.{key}={text_of(one)}' to the command, or give data of your own"
            )


def _texts(tree: Any) -> Iterator[str]:
    """Every text inside a tree of plain data."""
    for _, value in leaves(tree, lists=True):
        if isinstance(value, str):
            yield value
