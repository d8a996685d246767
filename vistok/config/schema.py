"""JSON schema of a config with every registered part, for editors and for quick errors.

`document(TrainConfig)` describes what a YAML file may hold: keys with their docstrings, choices,
ranges, the keys of each `kind`, references such as `${name}` in place of any value, and `base`. A
file that has a base needs none of the keys that its base may give, so each definition stands there
twice; the second has "over." before its name. The schema is of draft 7, which editors know best.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from vistok.config.base import keep_word
from vistok.config.parts import FAMILY
from vistok.config.registry import entries, families
from vistok.config.schema_nodes import FLAG, OVER, REFERENCE

DIALECT = "http://json-schema.org/draft-07/schema#"
_REF = "#/$defs/"
_PLACE = "x-place"
BASE = {
    "type": "string",
    "description": "Another YAML file, by its path from this one, over which this file is laid: "
    "mappings are merged, everything else (lists too) is replaced, and a mapping that changes its "
    "kind starts anew.",
}


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of one model and of all parts that it can hold.

    {"$ref": to the model, "$defs": {name: schema}}; families of parts are "family.NAME" among them.
    """
    known = {name: entries(name) for name in families()}
    configs = [entry.config for parts in known.values() for entry in parts.values()]
    several = [(one, "validation") for one in dict.fromkeys((model, *configs))]
    refs, whole = models_json_schema(several, schema_generator=_Generator)
    defs = {"flag": FLAG, **_placed(whole.get("$defs", {}))}
    for name, parts in known.items():
        kinds = {kind: refs[entry.config, "validation"]["$ref"] for kind, entry in parts.items()}
        for kind, entry in parts.items():
            own = defs[kinds[kind].removeprefix(_REF)]
            if described := _about(entry.part):
                own["description"] = described
                own["properties"]["kind"]["description"] = described
        defs[f"family.{name}"] = _family(name, kinds, defs)
    root = refs[model, "validation"]
    return {**root, "$defs": _reachable(root, defs)}


def document(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of a YAML file with such a config: `schema_of`, and what a `base` changes."""
    made = schema_of(model)
    root = made["$ref"].removeprefix(_REF)
    defs = made["$defs"]
    defs[root]["properties"] = {"base": BASE, **defs[root]["properties"]}
    over = {f"{OVER}{name}": _loose(schema) for name, schema in defs.items()}
    return {
        "$schema": DIALECT,
        "if": {"required": ["base"]},
        "then": {"$ref": f"{_REF}{OVER}{root}"},
        "else": {"$ref": f"{_REF}{root}"},
        "$defs": {**defs, **over},
    }


class _Generator(GenerateJsonSchema):
    """Pydantic's generator, with the values that our YAML may hold in place of each type."""

    def generate_inner(self, schema: Any) -> dict[str, Any]:
        made = super().generate_inner(schema)
        made.pop("title", None)
        if "description" in made:
            made["description"] = " ".join(made["description"].split())
        if isinstance(made.get("default"), dict) and "kind" not in made["default"]:
            made.pop("default")  # the keys inside say their own
        return made

    def get_title_from_name(self, name: str) -> str:
        return ""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def function_plain_schema(self, schema: Any) -> dict[str, Any]:
        family = schema.get("metadata", {}).get(FAMILY)
        return super().function_plain_schema(schema) if family is None else _part(family)

    def function_before_schema(self, schema: Any) -> dict[str, Any]:
        if schema["function"].get("function") is keep_word or "json_schema_input_schema" in schema:
            return super().function_before_schema(schema)
        inner = self.generate_inner(schema["schema"])
        of_model = schema["schema"]["type"] in ("model", "function-after", "model-fields")
        return inner if of_model else {"anyOf": [inner, {}]}

    def str_schema(self, schema: Any) -> dict[str, Any]:
        return {**super().str_schema(schema), "type": ["string", "number", "boolean"]}

    def int_schema(self, schema: Any) -> dict[str, Any]:
        return _or_reference(super().int_schema(schema))

    def float_schema(self, schema: Any) -> dict[str, Any]:
        return _or_reference(super().float_schema(schema))

    def bool_schema(self, schema: Any) -> dict[str, Any]:
        return {_PLACE: "flag"}

    def literal_schema(self, schema: Any) -> dict[str, Any]:
        made = super().literal_schema(schema)
        if "enum" not in made:  # a `kind`, mostly: an editor has to know it
            return {"const": made["const"]}
        return {"anyOf": [{"enum": made["enum"]}, _reference()]}

    def tuple_schema(self, schema: Any) -> dict[str, Any]:
        made = super().tuple_schema(schema)
        if "prefixItems" in made:  # the later dialects' name for a list of items
            made["items"] = made.pop("prefixItems")
            made["additionalItems"] = False
        return _or_reference(made)

    def list_schema(self, schema: Any) -> dict[str, Any]:
        return _or_reference(super().list_schema(schema))

    def dict_schema(self, schema: Any) -> dict[str, Any]:
        made = super().dict_schema(schema)
        if not any(key in made.get("propertyNames", {}) for key in ("anyOf", "$ref")):
            made.pop("propertyNames", None)  # names are text anyway
        return _or_reference(made)

    def model_schema(self, schema: Any) -> dict[str, Any]:
        return _or_reference(super().model_schema(schema))

    def tagged_union_schema(self, schema: Any) -> dict[str, Any]:
        return {"anyOf": super().tagged_union_schema(schema)["oneOf"]}


_FORMS = {
    "integer": "a whole number",
    "number": "a number",
    "array": "a list",
    "object": "a mapping",
}


def _or_reference(made: dict[str, Any]) -> dict[str, Any]:
    return {
        **made,
        "type": [made["type"], "string"],
        "pattern": REFERENCE,
        "patternErrorMessage": f"Expected {_FORMS[made['type']]}.",  # of yaml-language-server
    }


def _reference() -> dict[str, Any]:
    return {"type": "string", "pattern": REFERENCE}


def _part(family: str) -> dict[str, Any]:
    return {_PLACE: f"family.{family}"}


def _placed(schema: Any) -> Any:
    """Definitions with references in their places, to those that pydantic does not make."""
    if isinstance(schema, dict):
        rest = {key: _placed(inner) for key, inner in schema.items() if key != _PLACE}
        return {"$ref": f"{_REF}{schema[_PLACE]}", **rest} if _PLACE in schema else rest
    return [_placed(inner) for inner in schema] if isinstance(schema, list) else schema


def _family(name: str, kinds: dict[str, str], defs: dict[str, Any]) -> dict[str, Any]:
    """The schema of any part of a family: its `kind` decides which keys there are."""
    about = [defs[ref.removeprefix(_REF)].get("description", "") for ref in kinds.values()]
    return {
        "type": ["object", "string"],
        "pattern": REFERENCE,
        "patternErrorMessage": "Expected a mapping with a kind.",
        "x-family": name,
        "x-kinds": kinds,
        "properties": {"kind": {"enum": list(kinds), "markdownEnumDescriptions": about}},
        "required": ["kind"],
        "allOf": [
            {
                "if": {
                    "type": "object",
                    "required": ["kind"],
                    "properties": {"kind": {"const": kind}},
                },
                "then": {"$ref": ref},
            }
            for kind, ref in kinds.items()
        ],
    }


def _about(part: type) -> str:
    """The first paragraph of a part's docstring."""
    text = inspect.cleandoc(part.__doc__ or "").split("\n\n")[0]
    return " ".join(text.split())


def _loose(schema: Any) -> Any:
    """A copy of a definition for files over a base: nothing has to be there."""
    schema = copy.deepcopy(schema)
    if isinstance(schema, dict):
        rest = {key: _loose(inner) for key, inner in schema.items() if key != "required"}
        if "x-family" in schema:
            kinds = {kind: _over(ref) for kind, ref in schema["x-kinds"].items()}
            rest["x-kinds"] = kinds
            rest["allOf"] = [
                *({**row, "then": {"$ref": _over(row["then"]["$ref"])}} for row in schema["allOf"]),
                {
                    "if": {"not": {"required": ["kind"]}},
                    "then": {"anyOf": [{"$ref": ref} for ref in kinds.values()]},
                },
            ]
            return rest
        if isinstance(rest.get("$ref"), str):
            rest["$ref"] = _over(rest["$ref"])
        return rest
    return [_loose(inner) for inner in schema] if isinstance(schema, list) else schema


def _over(ref: str) -> str:
    return ref if ref.startswith(f"{_REF}{OVER}") else ref.replace(_REF, f"{_REF}{OVER}", 1)


def _reachable(root: Any, defs: dict[str, Any]) -> dict[str, Any]:
    """The definitions that `root` leads to, by name."""
    found: set[str] = set()
    waiting = list(_references(root))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _references(defs[name])
    return {name: defs[name] for name in sorted(found)}


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"].removeprefix(_REF)
        for inner in schema.values():
            yield from _references(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from _references(inner)
