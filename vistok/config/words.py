"""Values and what is expected of them, in the words of YAML: a list, a mapping, text, null."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vistok.config.overrides import text_of
from vistok.config.schema_nodes import Node, Schema, form_of

_LONGEST = 80  # characters of a value in an error
_LARGE = 2**16  # bounds above it are named only where a value passes them


def shown(value: Any) -> str:
    """A value as YAML writes it, in short; text stands in quotes."""
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json")
    if isinstance(value, str):
        text = repr(str(value))
    elif isinstance(value, Mapping | list | tuple | bool | int | float) or value is None:
        text = text_of(value)
    else:
        text = repr(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def listed(words: list[str], last: str = "or") -> str:
    """["a", "b", "c"] -> "a, b or c"."""
    return f" {last} ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def expected(schema: Schema, node: Node, value: Any = None) -> str:
    """The values that a node takes: "a whole number of 1 or more, or null".

    Args:
        value: what was given; a bound that nobody meets by accident is named where it is passed.
    """
    found = []
    for form in schema.choices(node):
        words = _expected(schema, form, value)
        if words and words not in found:
            found.append(words)
    empty = "null" in found
    found = [words for words in found if words != "null"]
    text = listed(found) or ("a value" if not empty else "")
    return ", or ".join(filter(None, (text, "null" if empty else "")))


def _expected(schema: Schema, form: Node, value: Any) -> str:
    kind = form_of(form)
    if kind == "choice":
        values = [text_of(one) for one in form.get("enum", [form.get("const")])]
        return values[0] if len(values) == 1 else f"one of: {', '.join(values)}"
    if kind == "integer":
        return f"a whole number{_range(form, value)}"
    if kind == "number":
        return f"a number{_range(form, value)}"
    if kind == "text":
        return f"text{_length(form)}"
    if kind == "array":
        return _list(schema, form)
    if kind == "object":
        return _mapping(schema, form)
    return {"boolean": "true or false", "null": "null", "reference": ""}.get(kind, "a value")


def _range(form: Node, value: Any) -> str:
    low, high = form.get("minimum"), form.get("maximum")
    above, below = form.get("exclusiveMinimum"), form.get("exclusiveMaximum")
    passed = value if isinstance(value, int | float) else 0
    if high is not None and high > _LARGE and not passed > high:
        high = None
    if below is not None and below > _LARGE and not passed >= below:
        below = None
    if low is not None and high is not None:
        return f" from {_number(low)} to {_number(high)}"
    parts = [
        f"of {_number(low)} or more" if low is not None else "",
        f"above {_number(above)}" if above is not None else "",
        f"of at most {_number(high)}" if high is not None else "",
        f"below {_number(below)}" if below is not None else "",
    ]
    text = " and ".join(filter(None, parts))
    return f" {text}" if text else ""


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _length(form: Node) -> str:
    least, most = form.get("minLength", 0), form.get("maxLength")
    if most is not None:
        return f" of {f'{least} to' if least else 'at most'} {most} characters"
    return " that is not empty" if least == 1 else f" of {least} or more characters" * bool(least)


def _list(schema: Schema, form: Node) -> str:
    items = form.get("items", True)
    if isinstance(items, list) and all(one == items[0] for one in items):
        return f"a list of {len(items)}, each {expected(schema, items[0])}"
    if isinstance(items, list):
        return f"a list of {len(items)}: [{', '.join(expected(schema, one) for one in items)}]"
    least, most = form.get("minItems", 0), form.get("maxItems")
    count = f" of {least} to {most}" if most is not None else f" of {least} or more" * bool(least)
    family = schema.family(items) if isinstance(items, Mapping) else None
    if family is not None:
        return f"a list of mappings with a `kind`{' (' + count.strip() + ')' if count else ''}"
    inner = expected(schema, items) if isinstance(items, Mapping) and items else ""
    each = f", each {inner}" if inner and inner != "a value" else ""
    return f"a list{count}{each}"


def _mapping(schema: Schema, form: Node) -> str:
    if "x-family" in form:
        return f"a mapping whose kind is one of: {', '.join(form['x-kinds'])}"
    if form.get("properties"):
        names = ", ".join(form["properties"])
        return f"a mapping with keys of: {names}"
    inner = form.get("additionalProperties")
    if isinstance(inner, Mapping) and inner:
        least = f" (at least {form['minProperties']})" if form.get("minProperties") else ""
        return f"a mapping of names to values{least}, each {expected(schema, inner)}"
    return "a mapping"
