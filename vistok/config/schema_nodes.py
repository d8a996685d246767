"""Ways through a JSON schema of configs (`schema.schema_of`), beside the data that it describes.

Nothing here imports more than the standard library: with the schema files that come with vistok
these functions explain a mistake before any network is imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

REFERENCE = r"\$\{"  # text with a reference stands for any value
WORDS_OF_FLAGS = (  # JavaScript's patterns know no mark for either case
    "^([Yy]([Ee][Ss])?|[Nn][Oo]?|[Oo][Nn]|[Oo][Ff][Ff]|[01]"
    "|[Tt]([Rr][Uu][Ee])?|[Ff]([Aa][Ll][Ss][Ee])?)$"
)
FLAG = {
    "x-flag": True,
    "anyOf": [
        {"type": "boolean"},
        {"enum": [0, 1]},
        {"type": "string", "pattern": f"{WORDS_OF_FLAGS}|{REFERENCE}"},
    ],
}
"""The schema of a boolean, which takes words like `yes` too."""
OVER = "over."  # what names of definitions for files with a base begin with
_REF = "#/$defs/"
Node = Mapping[str, Any]


class Schema:
    """A schema with its definitions; nodes are the schemas of single values."""

    def __init__(self, whole: Mapping[str, Any]) -> None:
        self.defs: Mapping[str, Any] = whole.get("$defs", {})
        self.root = self.resolve({"$ref": whole.get("else", whole).get("$ref", "")})

    def resolve(self, node: Node) -> Node:
        """A node in place of a reference to it; its default and description stay."""
        while "$ref" in node:
            beside = {key: value for key, value in node.items() if key != "$ref"}
            node = {**self.defs.get(node["$ref"].removeprefix(_REF), {}), **beside}
        return node

    def choices(self, node: Node) -> list[Node]:
        """The forms that a value may have; one for a node that is no choice."""
        node = self.resolve(node)
        if "x-flag" in node:
            return [{"type": "boolean"}]
        if "anyOf" not in node:
            return [node]
        return [form for inner in node["anyOf"] for form in self.choices(inner)]

    def mapping(self, node: Node, data: Any = None) -> Node | None:
        """The form with keys of its own; of parts the one that `data` names by its kind.

        None: the node has no such form, or the kind is missing or unknown.
        """
        for form in self.choices(node):
            if "x-family" in form:
                kind = data.get("kind") if isinstance(data, Mapping) else None
                if kind is None and isinstance(node.get("default"), Mapping):
                    kind = node["default"].get("kind")
                return self.of_kind(form, kind)
            if "properties" in form:
                return form
        return None

    def family(self, node: Node) -> Node | None:
        """The form that takes any part of a family, if the node has one."""
        return next((form for form in self.choices(node) if "x-family" in form), None)

    def of_kind(self, family: Node, kind: Any) -> Node | None:
        """The keys of one kind of a family."""
        ref = family["x-kinds"].get(kind) if isinstance(kind, str) else None
        return None if ref is None else self.resolve({"$ref": ref})

    def below(self, node: Node, step: Any, data: Any = None) -> Node | None:
        """The node of a key or place inside a value; None where there is none."""
        if isinstance(step, int):
            for form in self.choices(node):
                items = form.get("items")
                if isinstance(items, list):
                    return items[step] if step < len(items) else None
                if isinstance(items, dict):
                    return items
            return None
        form = self.mapping(node, data)
        if form is not None:
            return form["properties"].get(step)
        for form in self.choices(node):
            inner = form.get("additionalProperties")
            if isinstance(inner, Mapping):
                return inner
        return None

    def families(self) -> Iterator[Node]:
        """Every family of parts."""
        named = ((name, node) for name, node in self.defs.items() if "x-family" in node)
        return (node for name, node in named if not name.startswith(OVER))


def form_of(node: Node) -> str:
    """The form of a node that is no choice: text, integer, number, array, object, null, choice, or
    any."""
    if "enum" in node or "const" in node:
        return "choice"
    kinds = node.get("type", "any")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if "string" in kinds and "boolean" in kinds:
        return "text"
    for kind in kinds:
        if kind != "string" or len(kinds) == 1:
            return "reference" if node.get("pattern") == REFERENCE and kind == "string" else kind
    return "any"
