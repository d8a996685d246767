"""One-line errors for configs: the path, the value, what was expected and the nearest name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema

from vistok.config.errors import ConfigError
from vistok.config.mistakes import OWN_PART, Mistake, explain
from vistok.config.names import nearest
from vistok.config.plugins import check_recorded
from vistok.config.pydantic_errors import reason
from vistok.config.registry import entries
from vistok.config.schema_nodes import Node, Schema
from vistok.config.words import shown

M = TypeVar("M", bound=BaseModel)


def validate(model: type[M], data: Any, source: str = "config", path: Sequence[str] = ()) -> M:
    """`model.model_validate` whose error is a `ConfigError` of one line.

    The line explains the first mistake and names the places of the others; `path` is where `data`
    lies inside the whole config.
    """
    check_keys(data, list(model.model_fields), source)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        check_recorded(data.get("plugins") if isinstance(data, dict) else None, source)
        schema = _schema(model)
        mistakes = [_mistake(schema, data, item) for item in error.errors(include_url=False)]
        one_each = {(m.path, m.what): m for m in reversed(mistakes)}
        mistakes = list(reversed(one_each.values()))
        raise ConfigError(f"{source}: {explain(schema, data, mistakes, path)}") from None


def check_keys(data: Any, valid: Sequence[str], source: str) -> None:
    """ConfigError for a file of another kind: one unknown key is a slip of the pen, several and no
    known one are not."""
    if isinstance(data, dict) and len(data) > 1 and not set(data) & set(valid):
        raise ConfigError(
            f"{source}: another kind of config: its keys are {', '.join(map(str, data))[:80]}; "
            f"expected keys of: {', '.join(valid)}"
        )


def validate_part(family: str, data: Any, source: str = "config") -> Any:
    """The config of whichever part of `family` the data's `kind` names; ConfigError otherwise."""
    known = entries(family)
    kind = data.get("kind") if isinstance(data, dict) else None
    if not isinstance(kind, str) or kind not in known:
        given = "" if kind is None else f" {shown(kind)}"
        what = f"unknown {family}{given}" if given else f"missing; expected the kind of a {family}"
        raise ConfigError(f"{source}: kind: {what}; {nearest(str(kind), list(known))}; {OWN_PART}")
    return validate(known[kind].config, data, source)


def _schema(model: type[BaseModel]) -> Schema:
    from vistok.config.schema import schema_of  # only for an error

    try:
        return Schema(schema_of(model))
    except PydanticInvalidForJsonSchema:  # it holds values that no YAML can say
        return Schema({})


_WHAT = {
    "extra_forbidden": "unknown",
    "missing": "missing",
    "union_tag_not_found": "no kind",
    "union_tag_invalid": "kind",
    "value_error": "rule",
    "assertion_error": "rule",
}


def _mistake(schema: Schema, data: Any, item: Any) -> Mistake:
    path, node = _located(schema, data, item["loc"])
    what = _WHAT.get(item["type"], "value")
    if item["loc"][-1:] == ("[key]",):  # the name is wrong, not its value
        node = None
    if what == "missing" and isinstance(item["loc"][-1], int):  # the list is too short
        path, node = _located(schema, data, item["loc"][:-1])
        what = "value"
    if what in ("kind", "no kind") and (node is None or schema.family(node) is None):
        what = "value"
    return Mistake(path, what, item["input"], node, reason(item))


def _located(schema: Schema, data: Any, loc: Sequence[Any]) -> tuple[tuple, Node | None]:
    """(path of a pydantic error as a user would write it, node there).

    What pydantic names besides keys and places (the kind of a part, a member of a union, a
    mapping's key) is left out.
    """
    path: list[str | int] = []
    node: Node | None = schema.root
    tagged = False
    for number, step in enumerate(loc):
        if isinstance(data, BaseModel):
            data = dict(data)
        if isinstance(data, Mapping):
            form = None if node is None else schema.mapping(node, data)
            keys = form["properties"] if form is not None else {}
            part = node is None or schema.family(node) is not None
            if part and not tagged and step == data.get("kind"):
                tagged = True
                continue
            missing = number == len(loc) - 1 and not isinstance(step, int)
            if not (step in data or step in keys or (missing and node is None)):
                continue
        elif not (isinstance(data, list | tuple) and isinstance(step, int)):
            continue
        path.append(step)
        tagged = False
        node = None if node is None else schema.below(node, step, data)
        if isinstance(data, Mapping):
            data = data.get(step)
        else:
            data = data[step] if step < len(data) else None
    return tuple(path), node
