"""The schema files that come with vistok, and what a config can be told before torch is imported.

`configs/schema/` holds one file for each program (train, eval, study), made by `vistok schema
--write configs`. Editors read them through the first line of a YAML file, `# yaml-language-server:
$schema=...`; and a mistake that they show is told at once (`check`), instead of after the seconds
that the import of all parts takes. A file says by a digest which fields it was made from, so that
one that is older than the code (somebody is just adding a key) is not asked.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vistok.config.bounded import read_json
from vistok.config.errors import ConfigError
from vistok.config.mistakes import Mistake, explain, find
from vistok.config.names import close
from vistok.config.overrides import parse
from vistok.config.plugins import check_recorded, plugin_words
from vistok.config.schema_nodes import Schema
from vistok.config.shipped import folder
from vistok.config.yaml_files import read_yaml

PROGRAMS = {
    "train": "vistok.train.config:TrainConfig",
    "eval": "vistok.eval.config:EvalConfig",
    "study": "vistok.eval.study.study:StudyConfig",
}
"""Program -> module:class of its config."""

FOLDER = "schema"  # of the schema files, below configs/ and wherever else they are written
FIELDS = "x-fields"  # key of a schema: digest of the fields that it was made from
_LINE = re.compile(r"# yaml-language-server: \$schema=\S*\n")
_CLASS = re.compile(r"class .*Config\b")  # its own name, or that of a base
_REGISTERED = re.compile(r"@register\(.*Config\b")
_FIELD = re.compile(r"    \w+: ")


def file_name(program: str) -> str:
    return f"{program}.schema.json"


def check(program: str, tree: Any, source: str) -> None:
    """ConfigError, one line, for a config with mistakes that the shipped schema shows.

    Nothing is said where there is no such file, where parts of the user's own are loaded or
    recorded, and where the schema is older than the code: then the config itself has the word.
    """
    schema = _shipped(program)
    if schema is None or not isinstance(tree, Mapping) or tree.get("plugins"):
        return
    mistakes = list(find(schema, schema.root, tree))
    if mistakes and _is_current(program):
        check_recorded(tree.get("plugins"), source)
        raise ConfigError(f"{source}: {explain(schema, tree, mistakes, ())}")


def check_words(program: str, words: Sequence[str]) -> None:
    """As `check`, for a command line on which words stand that are no `key=value`.

    Those that are files, or look like paths, are left out.
    """
    schema = _shipped(program)
    if schema is None:
        return
    own = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or os.path.exists(word):
            continue
        first = _first(key)
        if first in ("config", *schema.root["properties"]):
            own.append(word)
        elif "/" not in key and _is_current(program):
            wrong = Mistake((first,), "unknown", value)
            raise ConfigError(explain(schema, {}, [wrong], ()))
    if not any(word.startswith("config=") for word in own):
        check(program, parse(own), "command line")


def check_study(name: str, words: Sequence[str]) -> None:
    """As `check`, for a study: its own keys, and those of the training config of its runs."""
    schema = _shipped("study")
    if schema is None:
        return
    keys = schema.root["properties"]
    own = [word for word in words if _first(word.partition("=")[0]) in keys]
    for word in words:
        key, _, value = word.partition("=")
        slip = word not in own and close(_first(key), keys, cutoff=0.8)
        if slip and _first(key) not in _shipped("train").root["properties"]:
            wrong = Mistake((_first(key),), "unknown", value)
            raise ConfigError(f"{name}: {explain(schema, {}, [wrong], ())}")
    tree = read_yaml(name, own)
    check("study", tree, name)
    theirs = [word for word in words if word not in own]
    runs = _shipped("train")
    for word in theirs:
        key, _, value = word.partition("=")
        known = runs is not None and _first(key) in runs.root["properties"]
        if not known and close(_first(key), schema.root["properties"], cutoff=0.75):
            wrong = Mistake((_first(key),), "unknown", value)
            raise ConfigError(f"{name}: {explain(schema, tree, [wrong], ())}")
    if theirs and isinstance(tree.get("train"), str):
        check("train", read_yaml(tree["train"], theirs), f"{name}: {tree['train']}")


def _first(key: str) -> str:
    return key.replace("[", ".").split(".")[0]


def schema_text(made: Mapping[str, Any]) -> str:
    """A schema as the text of a file, one definition on each line."""
    defs = made["$defs"]
    rest = {key: value for key, value in made.items() if key != "$defs"}
    lines = [f'  "{name}": {_compact(defs[name])}' for name in defs]
    head = _compact(rest)[:-1]
    return f'{head},\n"$defs": {{\n' + ",\n".join(lines) + "\n}}\n"


def with_line(text: str, schema: str) -> str:
    """The text of a YAML file whose first line names its schema."""
    return f"# yaml-language-server: $schema={schema}\n{_LINE.sub('', text, count=1)}"


def fields_digest() -> str:
    """Digest of the annotated fields of all config classes of vistok, train and eval.

    Of each class the lines `    name: type = ...`, and what continues them. It is read from the
    source, since importing it is what takes time.
    """
    found = hashlib.sha256()
    for package in ("vistok", "vistok.train", "vistok.eval"):
        spec = importlib.util.find_spec(package)
        places = [] if spec is None else list(spec.submodule_search_locations or ())
        for place in places:
            for path in sorted(Path(place).rglob("*.py")):
                lines = _field_lines(path.read_text("utf-8"))
                if lines:
                    name = f"{package}/{path.relative_to(place).as_posix()}"
                    found.update("\n".join((name, *lines)).encode())
    return found.hexdigest()


def _field_lines(text: str) -> list[str]:
    lines: list[str] = []
    in_class = taken = False
    for line in text.splitlines():
        if line and not line[0].isspace():
            in_class, taken = bool(_CLASS.match(line)), False
            if in_class or _REGISTERED.match(line):
                lines.append(line)
        elif in_class and line.startswith("    ") and not line.startswith("     "):
            taken = bool(_FIELD.match(line))
            if taken:
                lines.append(line)
        elif taken and line:
            lines.append(line)
    return lines


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@functools.cache
def _read(program: str) -> Mapping[str, Any] | None:
    """The schema file of a program that comes with vistok, if there is one."""
    root = folder()
    path = None if root is None else root / FOLDER / file_name(program)
    return read_json(path) if path is not None and path.is_file() else None


def _shipped(program: str) -> Schema | None:
    whole = None if plugin_words() else _read(program)
    return None if whole is None else Schema(whole)


@functools.cache
def _is_current(program: str) -> bool:
    whole = _read(program)
    return whole is not None and whole.get(FIELDS) == fields_digest()
