"""Mistakes of a config: found by its schema alone, or told by pydantic, and put into words."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vistok.config.names import close_ones
from vistok.config.schema_nodes import (
    REFERENCE,
    WORDS_OF_FLAGS,
    Node,
    Schema,
    form_of,
)
from vistok.config.suggestions import other_kind, unknown_key
from vistok.config.words import expected, listed, shown

_FLAG = re.compile(WORDS_OF_FLAGS)
Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong in a config.

    Args:
        path: where; of an unknown or missing key the key itself is the last name.
        what: "unknown" or "missing" key, "kind" that is unknown, "no kind", "value" of another
            type or out of range, or a broken "rule" of the config itself.
        node: what the schema says of the place; None if it says nothing.
        reason: the rule, or what was expected where there is no node.
    """

    path: Path
    what: str
    value: Any
    node: Node | None = None
    reason: str = ""


def explain(schema: Schema, tree: Any, mistakes: Sequence[Mistake], path: Sequence[str]) -> str:
    """One line: the first mistake in words, and the places of the others.

    Args:
        path: where `tree` lies inside the whole config.
    """
    first, *others = mistakes
    line = _words(schema, tree, first, tuple(path))
    if others:
        places = list(dict.fromkeys(_place((*path, *other.path)) for other in others))
        more = ", ..." if len(places) > 4 else ""
        line += f" (and {len(others)} more: {', '.join(places[:4])}{more})"
    return line


def _place(path: Sequence[str | int]) -> str:
    return ".".join(map(str, path)) or "(top level)"


def _words(schema: Schema, tree: Any, mistake: Mistake, prefix: Path) -> str:
    where, value = _place((*prefix, *mistake.path)), shown(mistake.value)
    if mistake.what == "unknown":
        hint = unknown_key(schema, tree, mistake.path, mistake.value, prefix)
        return f"{where}: unknown key, value {value}; {hint}"
    if mistake.what == "rule":
        # A rule names the keys and values that it is about; a whole mapping says nothing more.
        plain = not isinstance(mistake.value, Mapping) and not hasattr(mistake.value, "model_dump")
        got = f"got {value}; " if plain else ""
        return f"{where}: {got}{mistake.reason}"
    wanted = mistake.reason
    if mistake.node is not None:
        wanted = expected(schema, mistake.node, mistake.value)
        if isinstance(mistake.value, float) and not math.isfinite(mistake.value):
            wanted = wanted.replace("a number", "a finite number", 1)
    if mistake.what == "missing":
        return f"{where}: missing; expected {wanted}"
    family = None if mistake.node is None else schema.family(mistake.node)
    if mistake.what == "no kind":
        kinds = ", ".join(family["x-kinds"]) if family else wanted
        return f"{where}: no 'kind' given in {value}; expected one of: {kinds}"
    if mistake.what == "kind" and family is not None:
        return f"{where}.kind: {_unknown_kind(schema, family, mistake.value)}"
    return f"{where}: got {value}; expected {wanted}{_remedy(schema, mistake, family)}"


OWN_PART = "for a part of your own add plugins=its.module"


def _unknown_kind(schema: Schema, family: Node, value: Any) -> str:
    kind = value.get("kind") if isinstance(value, Mapping) else value
    valid, name = list(family["x-kinds"]), family["x-family"]
    if not isinstance(kind, str):
        return f"got {shown(kind)}; expected one of: {', '.join(valid)}"
    like = other_kind(kind, valid) or close_ones(kind, valid)
    elsewhere = [one["x-family"] for one in schema.families() if kind in one["x-kinds"]]
    hint = ""
    if like:
        hint = f"did you mean {listed([repr(one) for one in like])}? "
    elif elsewhere:
        hint = f"'{kind}' is the kind of a {listed(elsewhere)}, and this is a {name}; "
    return f"unknown kind '{kind}'; {hint}valid: {', '.join(valid)}; {OWN_PART}"


def _remedy(schema: Schema, mistake: Mistake, family: Node | None) -> str:
    """How the value could have been meant, as the end of the line."""
    value, node = mistake.value, mistake.node
    if node is None:
        return ""
    forms = {form_of(form) for form in schema.choices(node)}
    numbers = forms & {"integer", "number"}
    if family is not None and isinstance(value, str):
        if family["x-family"] == "data" and value not in family["x-kinds"]:
            return f"; for a folder of images write {{kind: folder, path: {value}, size: 256}}"
        meant = [value] if value in family["x-kinds"] else other_kind(value, family["x-kinds"])
        return f"; write {{kind: {meant[0]}}}" if meant else ""
    if "null" in forms and (value is False or str(value).lower() in ("off", "none", "no")):
        return "; write null"
    if "array" in forms and not isinstance(value, list | tuple):
        items = schema.below(node, 0)
        if items is not None and not any(find(schema, items, value)):
            return f"; write [{shown(value)}]"
    if numbers and isinstance(value, str) and re.search("[0-9]", value):
        return "; numbers are plain decimals, such as 100 or 0.5"
    if numbers == {"integer"} and isinstance(value, float) and value.is_integer():
        return f"; write {int(value)}"
    if value is None and "text" in forms:
        return " (the word null in quotes, if it is meant)"
    return ""


def find(schema: Schema, node: Node, value: Any, path: Path = ()) -> Iterator[Mistake]:
    """Every mistake of a value that the schema knows, in the order of the value's keys."""
    if (isinstance(value, str) and re.search(REFERENCE, value)) or hasattr(value, "model_fields"):
        return
    forms = schema.choices(node)
    if any(form_of(form) == "any" for form in forms):
        return
    if isinstance(value, Mapping):
        yield from _find_in_mapping(schema, node, forms, value, path)
    elif isinstance(value, list | tuple):
        yield from _find_in_list(schema, node, forms, value, path)
    elif not any(_takes(form, value) for form in forms):
        yield Mistake(path, "value", value, node)


def _find_in_mapping(
    schema: Schema, node: Node, forms: list[Node], value: Mapping, path: Path
) -> Iterator[Mistake]:
    family = schema.family(node)
    form = schema.mapping({**node, "default": None}, value)
    if form is None and family is not None:
        what = "kind" if "kind" in value else "no kind"
        yield Mistake(path, what, value, node)
    elif form is not None:
        keys = form["properties"]
        for key, inner in value.items():
            if key in keys:
                yield from find(schema, keys[key], inner, (*path, key))
            elif form.get("additionalProperties", True) is False:
                yield Mistake((*path, key), "unknown", inner)
        for key in form.get("required", ()):
            if key not in value:
                yield Mistake((*path, key), "missing", value, keys[key])
    elif all(form_of(one) != "object" for one in forms):
        yield Mistake(path, "value", value, node)
    else:
        items = schema.below(node, "")
        for key, inner in value.items() if isinstance(items, Mapping) else ():
            yield from find(schema, items, inner, (*path, key))


def _find_in_list(
    schema: Schema, node: Node, forms: list[Node], value: Sequence, path: Path
) -> Iterator[Mistake]:
    lists = [form for form in forms if form_of(form) == "array"]
    counts = [(form.get("minItems", 0), form.get("maxItems", math.inf)) for form in lists]
    if not any(low <= len(value) <= high for low, high in counts):
        yield Mistake(path, "value", value, node)
    elif len(lists) == 1:  # of several, the config itself picks one
        for place, inner in enumerate(value):
            items = schema.below(lists[0], place)
            if isinstance(items, Mapping):
                yield from find(schema, items, inner, (*path, place))


def _takes(form: Node, value: Any) -> bool:
    """True if a form takes a value that is neither mapping nor list."""
    kind = form_of(form)
    if kind == "choice":
        return any(
            value == one and isinstance(value, bool) == isinstance(one, bool)
            for one in form.get("enum", [form.get("const")])
        )
    if kind == "text":
        return value is not None and (
            form.get("minLength", 0) <= len(str(value)) <= form.get("maxLength", math.inf)
        )
    if kind == "boolean":
        return isinstance(value, bool) or bool(_FLAG.match(str(value)))
    if kind in ("integer", "number"):
        kinds = int if kind == "integer" else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool) and _within(form, value)
    return kind == "null" and value is None


def _within(form: Node, value: float) -> bool:
    return (
        math.isfinite(value)
        and form.get("minimum", value) <= value <= form.get("maximum", value)
        and value > form.get("exclusiveMinimum", -math.inf)
        and value < form.get("exclusiveMaximum", math.inf)
    )
