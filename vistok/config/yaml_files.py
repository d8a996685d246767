"""Our YAML files: a file over its base, references to its own keys, `key.sub=value` over both.

Files are read as they are typed and within bounds (`yaml_text`): any of them may have come with a
run of somebody else.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from vistok.config.bounded import read_text
from vistok.config.errors import ConfigError, UserError
from vistok.config.overrides import apply, merge
from vistok.config.references import check_references, follow_references
from vistok.config.scalars import plain
from vistok.config.shipped import find
from vistok.config.yaml_text import dump_yaml, parse_yaml
from vistok.core.verbosity import debug

LARGEST = 2**20  # bytes of a config file


def read_yaml(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read one of our YAML files and lay `key.sub=value` overrides over it.

    `path` may also be the name of a shipped config. A file may name a `base: other.yaml`, a path
    from its own folder, which it is laid over: mappings are merged, all
    else (lists too) is replaced, and a mapping that changes its `kind` starts anew. Raises
    `ConfigError` when a file is missing or broken, or an override is not `key=value`.
    """
    path = find(path)
    debug(f"config: {path}")
    tree = apply(_load(path, ()), overrides)
    try:
        return follow_references(tree)
    except ConfigError as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None


def read_plain_yaml(path: str | Path) -> Any:
    """The content of a YAML file as it stands, of plain types: no base, no references.

    Raises ConfigError, one line, for a file that cannot be read.
    """
    return plain(_read(path))


def _read(path: str | Path) -> Any:
    try:
        return parse_yaml(read_text(path, LARGEST))
    except (UserError, OSError) as error:
        reason = " ".join(str(error).removeprefix(f"{path}: ").split())
        raise ConfigError(f"{path}: cannot be read: {reason}") from None


def _load(path: Path, inside: tuple[Path, ...]) -> dict[str, Any]:
    """The tree of a file over that of its base; references not followed yet."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such config file; expected the path of a YAML file")
    if path.resolve() in inside:
        raise ConfigError(f"{path}: is its own base; expected a chain of files that ends")
    tree = _read(path)
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected `key: value` lines at the top level")
    check_references(tree, path)
    base = tree.pop("base", None)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base: got {base!r}; expected the name of a YAML file")
    return merge(_load(path.parent / base, (*inside, path.resolve())), tree)


def to_yaml(config: BaseModel) -> str:
    """The resolved config as YAML; reading it back gives an equal config."""
    return dump_yaml(config.model_dump(mode="json"))
