"""Names -> parts. A part is a class that is built from its own typed config.

`@register("quantizer", FSQConfig)` files the class under the config's `kind`. Parts are only ever
looked up by registered name, never by an import path that a file names.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from vistok.config.contract import check_built, check_class
from vistok.core.errors import InputError

T = TypeVar("T", bound=type)


@dataclass(frozen=True)
class Entry:
    """One registered part: its config class and the class built from it."""

    family: str
    kind: str
    config: type
    part: type


_ENTRIES: dict[str, dict[str, Entry]] = {}


def register(family: str, config: type) -> Callable[[T], T]:
    """File the decorated class under (family, config.kind); the config has a default `kind`."""

    def add(part: T) -> T:
        kind = config.model_fields["kind"].default
        taken = _ENTRIES.setdefault(family, {}).get(kind)
        if taken is not None and _name(taken.part) != _name(part):  # a reload is no second part
            raise InputError(
                f"{family} '{kind}' is registered twice: in {inspect.getfile(taken.part)} and "
                f"{inspect.getfile(part)}; give one of them another kind"
            )
        _ENTRIES[family][kind] = Entry(family, kind, config, part)
        return part

    return add


def _name(part: type) -> tuple[str, str]:
    return part.__module__, part.__qualname__


def entries(family: str) -> dict[str, Entry]:
    """All parts of a family by kind, in the order of registration."""
    return dict(_ENTRIES.get(family, {}))


def families() -> tuple[str, ...]:
    return tuple(_ENTRIES)


def entry_of(config: object) -> Entry:
    """The entry whose config class is exactly that of `config`."""
    for family in _ENTRIES.values():
        for entry in family.values():
            if entry.config is type(config):
                return entry
    raise KeyError(f"{type(config).__name__} is not the config of a registered part")


def build(config: object, *args: Any, **kwargs: Any) -> Any:
    """Build the part that `config` describes: `part(config, *args, **kwargs)`.

    Raises ConfigError, one line, for a part that lacks what its family needs (`contract`).
    """
    entry = entry_of(config)
    check_class(entry.family, entry.kind, entry.part)
    part = entry.part(config, *args, **kwargs)
    check_built(entry.family, entry.kind, part)
    return part
