"""The one grammar of `key.sub=value`, for every command.

The key is a path of names and list places (`losses.1.start` or `losses[1].start`); the value is
YAML: `1e-4` is a number, `null` is None, `[1, 2]` a list, `{kind: vq}` a mapping, `'3'` text. The
value replaces what was there, mappings and lists too.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

from vistok.config.errors import ConfigError

_PLACE = re.compile(r"\[(\d+)\]")


def split(override: str) -> tuple[tuple[str, ...], str]:
    """(path, text of the value) of one override; ConfigError if it is not `key.sub=value`."""
    key, equals, text = override.partition("=")
    path = tuple(_PLACE.sub(r".\1", key.strip()).split("."))
    if not equals or not all(path):
        raise ConfigError(f"'{override}': expected an override of the form key.sub=value")
    return path, text


def value_of(text: str) -> Any:
    """The value that the text of an override gives; ConfigError if it is not YAML."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        read = OmegaConf.from_dotlist([f"value={text}"])
        return OmegaConf.to_container(read, resolve=False)["value"]
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())[:160]
        raise ConfigError(
            f"'{text}': not a YAML value ({reason}); put text with special signs into quotes"
        ) from None


def text_of(value: Any) -> str:
    """The text of an override that gives this value: the inverse of `value_of`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(text_of, value))}]"
    return str(value)


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
    if not path[-1].isdigit():
        raise ConfigError(
            f"'{override}': {where} is a list; expected a place 0..{len(place) - 1} after it, got "
            f"'{path[-1]}'"
        )
    if int(path[-1]) >= len(place):
        raise ConfigError(
            f"'{override}': place {path[-1]} is out of range, {where} has {len(place)} entries; "
            f"expected 0..{len(place) - 1}, or give the whole list: {where}=[...]"
        )
    return int(path[-1])
