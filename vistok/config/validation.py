"""One-line errors for configs: the path, the value, what was expected and the nearest name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError

from vistok.config.errors import ConfigError
from vistok.config.names import nearest
from vistok.config.parts import PartOf
from vistok.config.plugins import check_recorded
from vistok.config.registry import entries

M = TypeVar("M", bound=BaseModel)


def validate(model: type[M], data: Any, source: str = "config", path: Sequence[str] = ()) -> M:
    """`model.model_validate` whose error is a `ConfigError` of one line.

    The line explains the first mistake and names the places of the others; `path` is where `data`
    lies inside the whole config.
    """
    # One unknown key is a slip of the pen; several and no known one are another file.
    if isinstance(data, dict) and len(data) > 1 and not set(data) & set(model.model_fields):
        raise ConfigError(
            f"{source}: another kind of config: its keys are {short(', '.join(map(str, data)))}; "
            f"expected keys of {model.__name__}: {', '.join(model.model_fields)}"
        )
    try:
        return model.model_validate(data)
    except ValidationError as error:
        check_recorded(data.get("plugins") if isinstance(data, dict) else None, source)
        first, *others = error.errors()
        line = f"{source}: {_explain(model, first, tuple(path))}"
        if others:
            places = ", ".join(_place(model, item, tuple(path))[0] for item in others)
            line += f" (and {len(others)} more: {places})"
        raise ConfigError(line) from None


def validate_part(family: str, data: Any, source: str = "config") -> Any:
    """The config of whichever part of `family` the data's `kind` names; ConfigError otherwise."""
    known = entries(family)
    kind = data.get("kind") if isinstance(data, dict) else None
    if not isinstance(kind, str) or kind not in known:
        raise ConfigError(
            f"{source}: kind: unknown {family} {kind!r}; {nearest(str(kind), list(known))}; {_OWN}"
        )
    return validate(known[kind].config, data, source)


_OWN = "for a part of your own add plugins=its.module"
_PLAIN_TYPES = {"int_type": "an integer", "float_type": "a number"}


def _place(model: type, item: Any, prefix: tuple[str, ...]) -> tuple[str, list[str]]:
    """(path of an error as a user would write it, names that are valid there)."""
    names, fields = _walk(model, tuple(item["loc"]))
    path = ".".join((*prefix, *(str(name) for name in names if name != "[key]")))
    return path or "(top level)", fields


def _explain(model: type, item: Any, prefix: tuple[str, ...]) -> str:
    loc = tuple(item["loc"])
    where, fields = _place(model, item, prefix)
    kind, value = item["type"], short(item["input"])
    if kind == "extra_forbidden":
        return f"{where}: unknown key, value {value}; {nearest(str(loc[-1]), fields)}"
    if kind == "missing":
        return f"{where}: missing; expected a value of type {_expected(model, loc)}"
    if kind == "union_tag_not_found":
        return f"{where}: no 'kind' given in {value}; expected one of {', '.join(fields)}"
    if kind == "union_tag_invalid":
        tags = [t.strip(" '") for t in item["ctx"]["expected_tags"].split(",")]
        tag = item["ctx"]["tag"]
        return f"{where}.kind: unknown kind '{tag}'; {nearest(tag, tags)}; {_OWN}"
    if kind in _PLAIN_TYPES and isinstance(item["input"], str):
        return f"{where}: got {value}; expected {_PLAIN_TYPES[kind]} in plain decimals, such as 100"
    if kind == "string_type" and item["input"] is None:
        return f"{where}: got null, which is nothing; expected text (the word itself in quotes)"
    message = item["msg"].removeprefix("Value error, ")
    return f"{where}: got {value}; {message[0].lower() + message[1:]}"


def short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _walk(model: type, loc: tuple) -> tuple[list, list[str]]:
    """Follow an error's location: (its path without union tags, valid names where it ends)."""
    names: list = []
    current: Any = model
    for step in loc:
        family = _family(current)
        if family is not None and step in entries(family):
            current = entries(family)[step].config
            continue
        tagged = _tagged(current)
        if step in tagged:
            current = tagged[step]
            continue
        if isinstance(current, type) and issubclass(current, BaseModel):
            names.append(step)
            info = current.model_fields.get(step)
            if info is None:
                return names, list(current.model_fields)
            current = (
                Annotated[info.annotation, *info.metadata] if info.metadata else (info.annotation)
            )
            current = _strip_optional(current)
        elif isinstance(step, int):
            names.append(step)
            args = [a for a in get_args(_bare(current)) if a is not Ellipsis]
            current = _strip_optional(args[0]) if args else Any
        else:
            names.append(step)
            args = get_args(_bare(current))
            current = _strip_optional(args[-1]) if args else Any
    family = _family(current)
    if family is not None:
        return names, list(entries(family))
    if isinstance(current, type) and issubclass(current, BaseModel):
        return names, list(current.model_fields)
    return names, []


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _tagged(annotation: Any) -> dict[Any, Any]:
    """{tag: member} of a union whose members are told apart by tags."""
    return {
        extra.tag: member
        for member in get_args(_bare(annotation))
        if get_origin(member) is Annotated
        for extra in get_args(member)[1:]
        if isinstance(extra, Tag)
    }


def _family(annotation: Any) -> str | None:
    if get_origin(annotation) is Annotated:
        for extra in get_args(annotation)[1:]:
            if isinstance(extra, PartOf):
                return extra.family
    return None


def _strip_optional(annotation: Any) -> Any:
    """`X | None` -> X; `Annotated[...]` and everything else unchanged."""
    if get_origin(annotation) is Annotated:
        return annotation
    args = [a for a in get_args(annotation) if a is not type(None)]
    if len(args) == 1 and type(None) in get_args(annotation):
        return args[0]
    return annotation


def _expected(model: type, loc: tuple) -> str:
    current: Any = model
    for step in loc:
        family = _family(current)
        if family is not None and step in entries(family):
            current = entries(family)[step].config
        elif isinstance(current, type) and issubclass(current, BaseModel):
            info = current.model_fields[step]
            current = _strip_optional(
                Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
            )
        else:
            args = [a for a in get_args(_bare(current)) if a is not Ellipsis]
            current = _strip_optional(args[-1]) if args else Any
    family = _family(current)
    if family is not None:
        return f"{family} (kind: {' | '.join(entries(family))})"
    current = _bare(current)
    return getattr(current, "__name__", str(current))
