"""The base of every config: a frozen pydantic model that refuses unknown keys and keeps types."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

LARGEST = 2**53  # of an integer field without a bound of its own: no more fits every format

# Where a schema holds no schemas of values: keys of mappings are always text.
_OTHER = ("default", "metadata", "config", "cls", "serialization", "keys_schema", "expected")
_UNIONS = ("union", "tagged-union")


def keep_word(value: Any) -> Any:
    """The word that was typed, where text was wanted and it means a boolean."""
    return str(value).lower() if isinstance(value, bool) else value


def _keep_types(schema: Any, inside: str = "") -> None:
    """Make number fields strict and let text fields take any word, in place.

    Left to itself pydantic takes true, "1_000" and 3.0 for integers.
    """
    if isinstance(schema, list | tuple):
        for inner in schema:
            _keep_types(inner, inside)
        return
    if not isinstance(schema, dict):
        return
    kind = schema.get("type")
    if kind == "function-before" and schema["function"].get("function") is keep_word:
        return
    if kind == "str" and inside not in _UNIONS:  # there another choice may want the boolean
        text = dict(schema)
        schema.clear()
        schema |= core_schema.no_info_before_validator_function(keep_word, text)
        return
    if kind in ("int", "float"):
        schema["strict"] = True
    if kind == "int" and "lt" not in schema:
        schema.setdefault("le", LARGEST)
    for key, inner in schema.items():
        if key not in _OTHER:
            _keep_types(inner, kind if isinstance(kind, str) else inside)


class Config(BaseModel):
    """Base of every config: frozen, unknown keys refused, one docstring line under each field.

    What is typed counts: a text field takes a number as it was typed (0042), and any word; a number
    field takes no text, no boolean and nothing that is not finite; an integer field no fraction.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
        coerce_numbers_to_str=True,
        allow_inf_nan=False,
    )

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        _keep_types(schema)
        return schema

    @classmethod
    def tiny(cls) -> Self:
        """The smallest config of its kind that is worth a test: what takes a second on a CPU."""
        return cls()
