"""The one grammar of `key.sub=value`, for every command.

The key is a path of names and list places (`losses.1.start` or `losses[1].start`). The value is
read as it is typed: `1e-4` is a number, `null` is None, `010` ten and `yes` text (`scalars`);
`[1, 2]` is a list, `{kind: vq}` a mapping, `'3'` text. It replaces what was there, mappings and
lists too.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vistok.config.bounded import DEEPEST
from vistok.config.errors import ConfigError
from vistok.config.scalars import scalar
from vistok.config.yaml_text import parse_yaml
from vistok.core.errors import InputError

_PLACE = re.compile(r"\[([0-9]+)\]")
_NUMBER = re.compile(r"[0-9]{1,9}")
_OPENING = ("[", "{", "'", '"')  # how lists, mappings and quoted text begin
_BARE = re.compile(
    r"[\w./~+]([\w./~*+@%-]*[\w./~*+%-])?"
)  # text that needs no quotes inside a list


def split(override: str) -> tuple[tuple[str, ...], str]:
    """(path, text of the value) of one override; ConfigError if it is not `key.sub=value`."""
    key, equals, text = override.partition("=")
    path = places(key.strip())
    if not equals or not all(path) or len(path) > DEEPEST:
        raise ConfigError(f"'{override}': expected an override of the form key.sub=value")
    return path, text


def places(key: str) -> tuple[str, ...]:
    """The names and list places of a path: `a[0].b` and `a.0.b` are ("a", "0", "b")."""
    return tuple(_PLACE.sub(r".\1", key).split("."))


def place_of(name: str) -> int | None:
    """The place in a list that a name of a path stands for; None if it is no number."""
    return int(name) if _NUMBER.fullmatch(name) else None


def value_of(text: str) -> Any:
    """The value that the text of an override gives; ConfigError if it is not YAML.

    Lists, mappings and quotes are YAML; everything else is one plain value as a whole, so that
    `my #1 folder` and `*.tar` are what they say.
    """
    text = text.strip()
    if not text.startswith(_OPENING):
        return scalar(text)
    try:
        return parse_yaml(text)
    except InputError as error:
        reason = str(error)[:160]
        raise ConfigError(
            f"'{text}': not a YAML value ({reason}); put text with special signs into quotes"
        ) from None


def text_of(value: Any) -> str:
    """The text of an override that gives this value: the inverse of `value_of`."""
    if isinstance(value, str):
        plain = not value.startswith(_OPENING) and isinstance(scalar(value.strip()), str)
        return value if plain and value == value.strip() else _quoted(value)
    return _text_inside(value)


def _text_inside(value: Any) -> str:
    """The text of a value inside a list or mapping, where commas and colons mean something."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_text_inside, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_text_inside(k)}: {_text_inside(v)}' for k, v in value.items())}}}"
    if isinstance(value, str):
        plain = _BARE.fullmatch(value) and isinstance(scalar(value), str)
        return value if plain else _quoted(value)
    return str(value)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def leaves(tree: Any, name: str = "", lists: bool = False) -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of everything inside `tree`, below `name`; `lists` opens lists too."""
    if isinstance(tree, Mapping):
        items = tree.items()
    elif lists and isinstance(tree, list):
        items = enumerate(tree)
    else:
        yield name, tree
        return
    for key, value in items:
        yield from leaves(value, f"{name}.{key}" if name else str(key), lists)


def parse(overrides: Iterable[str]) -> dict[str, Any]:
    """["a.b=1", "c=[2]"] -> {"a": {"b": 1}, "c": [2]}; later ones win. Errors as in `apply`."""
    return apply({}, overrides)


def apply(tree: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of the tree in which each override has set its value; missing mappings are made.

    Raises ConfigError, one line, for an override that is not `key.sub=value` or whose path names a
    place that a list does not have.
    """
    result = copy.deepcopy(dict(tree))
    for override in overrides:
        path, text = split(override)
        value = value_of(text)
        place: Any = result
        for depth, name in enumerate(path[:-1]):
            key = _key(place, path[: depth + 1], override)
            inner = place[key] if isinstance(place, list) else place.get(name)
            if not isinstance(inner, dict | list):  # nothing, or a plain value that is replaced
                inner = place[key] = {}
            place = inner
        place[_key(place, path, override)] = value
    return result


def merge(below: Any, above: Any) -> Any:
    """`above` laid over `below`: mappings are merged, all else (lists too) is replaced, and a
    mapping of another `kind` starts anew."""
    if not isinstance(below, Mapping) or not isinstance(above, Mapping):
        return above
    if "kind" in above and above["kind"] != below.get("kind"):
        return above
    shared = below.keys() & above.keys()
    return {**below, **{k: merge(below[k], v) if k in shared else v for k, v in above.items()}}


def _key(place: Any, path: tuple[str, ...], override: str) -> str | int:
    """The last name of a path as a key of the mapping or a place of the list it lies in."""
    if not isinstance(place, list):
        return path[-1]
    where = ".".join(path[:-1])
    place_number = place_of(path[-1])
    if place_number is None:
        raise ConfigError(
            f"'{override}': {where} is a list; expected a place 0..{len(place) - 1} after it, got "
            f"'{path[-1]}'"
        )
    if place_number >= len(place):
        raise ConfigError(
            f"'{override}': place {path[-1]} is out of range, {where} has {len(place)} entries; "
            f"expected 0..{len(place) - 1}, or give the whole list: {where}=[...]"
        )
    return place_number
