"""Our YAML files: a file over its base, references to its own keys, `key.sub=value` over both.

OmegaConf reads only YAML of ours. Text that came with downloaded weights is read by `json` and
never resolved.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from vistok.config.errors import ConfigError
from vistok.config.overrides import apply, merge
from vistok.config.shipped import find
from vistok.config.validation import short


def read_yaml(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read one of our YAML files and lay `key.sub=value` overrides over it.

    `path` may also be the name of a shipped config. A file may name a `base: other.yaml`, a path
    from its own folder, which it is laid over: mappings are merged, all
    else (lists too) is replaced, and a mapping that changes its `kind` starts anew. Raises
    `ConfigError` when a file is missing or broken, or an override is not `key=value`.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    path = find(path)
    try:
        tree = OmegaConf.to_container(_load(path, ()), resolve=False)
        tree = OmegaConf.create(apply(tree, overrides))
        return OmegaConf.to_container(tree, resolve=True)
    except (
        yaml.YAMLError,
        OmegaConfBaseException,
        OSError,
        TypeError,
        IndexError,
        UnicodeDecodeError,
    ) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: cannot be read: {reason}") from None


_REFERENCE = re.compile(r"\$\{[\w.\[\]-]*\}")  # ${a}, ${a.b[0]}


def _check_references(tree: Any, path: Path, place: str = "") -> None:
    """ConfigError for `${resolver:...}`: a file may have come with a run of somebody else, and only
    its own keys are put into it, never the environment."""
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            _check_references(value, path, f"{place}.{key}" if place else str(key))
    elif isinstance(tree, str):
        rest, before = tree, ""
        while rest != before:
            before, rest = rest, _REFERENCE.sub("", rest)
        if "${" in rest:
            raise ConfigError(
                f"{path}: {place}: got {short(tree)}; only references to other keys like "
                f"${{name}} are followed: give the value as {place}=... on the command line"
            )


def _load(path: Path, inside: tuple[Path, ...]) -> Any:
    """The OmegaConf tree of a file over that of its base, nothing resolved yet."""
    from omegaconf import OmegaConf

    if not path.is_file():
        raise ConfigError(f"{path}: no such config file; expected the path of a YAML file")
    if path.resolve() in inside:
        raise ConfigError(f"{path}: is its own base; expected a chain of files that ends")
    tree = OmegaConf.load(path)
    if not OmegaConf.is_dict(tree):
        raise ConfigError(f"{path}: expected `key: value` lines at the top level")
    _check_references(OmegaConf.to_container(tree), path)
    base = OmegaConf.to_container(tree, resolve=False).get("base")
    if base is None:
        return tree
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base: got {base!r}; expected the name of a YAML file")
    del tree["base"]
    below = _load(path.parent / base, (*inside, path.resolve()))
    plain = lambda one: OmegaConf.to_container(one, resolve=False)
    return OmegaConf.create(merge(plain(below), plain(tree)))


def to_yaml(config: BaseModel) -> str:
    """The resolved config as YAML; reading it back gives an equal config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
