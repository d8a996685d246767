"""References of a config to its own keys: `${name}`, `${a.b[0]}`, `${.beside}`, `${..above}`.

A reference alone gives the value, inside text its text as it was typed. The file may have come
with a run of somebody else: only its own keys are put into it, never the environment, and what
references unfold to is bounded.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from vistok.config.bounded import DEEPEST
from vistok.config.errors import ConfigError
from vistok.config.overrides import place_of, places, text_of
from vistok.config.words import shown
from vistok.config.yaml_text import MOST_VALUES

_REFERENCE = re.compile(r"\$\{([\w.\[\]-]+)\}")
_Path = tuple[str, ...]
_MOST_TEXT = 2**20  # characters of all text that references give


def check_references(tree: Any, path: Path, place: str = "") -> None:
    """ConfigError for a `${...}` in a file that is no reference to a key, `${oc.env:HOME}` say."""
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            check_references(value, path, f"{place}.{key}" if place else str(key))
    elif isinstance(tree, str) and "${" in _REFERENCE.sub("", tree):
        raise ConfigError(
            f"{path}: {place}: got {shown(tree)}; only references to other keys like ${{name}} are "
            f"followed: give the value as {place}=... on the command line"
        )


def follow_references(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree with every reference replaced; ConfigError, one line, for one that leads nowhere,
    to itself, or to too much."""
    return _Follower(tree).value(tree, (), ())


class _Follower:
    def __init__(self, root: dict[str, Any]) -> None:
        self.root, self.made, self.written = root, 0, 0

    def value(self, value: Any, at: _Path, inside: tuple[_Path, ...]) -> Any:
        """The value at the path `at`, resolved; `inside`: paths whose references led here."""
        self.made += 1
        if self.made > MOST_VALUES:
            raise ConfigError(f"references unfold to more than {MOST_VALUES:,} values")
        if isinstance(value, dict):
            return {key: self.value(inner, (*at, key), inside) for key, inner in value.items()}
        if isinstance(value, list):
            rows = enumerate(value)
            return [self.value(inner, (*at, str(place)), inside) for place, inner in rows]
        if not isinstance(value, str) or "${" not in value:
            return value
        whole = _REFERENCE.fullmatch(value)
        if whole:
            return self._target(whole[1], at, inside)
        text = _REFERENCE.sub(lambda match: self._text(match[1], at, inside), value)
        self.written += len(text)
        if self.written > _MOST_TEXT:
            raise ConfigError(f"references unfold to more than {_MOST_TEXT:,} characters")
        return text

    def _text(self, name: str, at: _Path, inside: tuple[_Path, ...]) -> str:
        found = self._target(name, at, inside)
        return found if isinstance(found, str) else text_of(found)

    def _target(self, name: str, at: _Path, inside: tuple[_Path, ...]) -> Any:
        key = name.lstrip(".")
        up = len(name) - len(key)
        path = (*(at[:-up] if up else ()), *places(key))
        if up > len(at):
            raise ConfigError(f"${{{name}}}: has more dots than keys lie above it")
        if path in inside or len(inside) > DEEPEST:
            raise ConfigError(f"${{{name}}}: refers to itself")
        found: Any = self.root
        for step in path:
            place = place_of(step)
            if isinstance(found, dict) and step in found:
                found = found[step]
            elif isinstance(found, list) and place is not None and place < len(found):
                found = found[place]
            else:
                raise ConfigError(f"${{{name}}}: key '{name}' not found in this config")
        return self.value(found, path, (*inside, path))
